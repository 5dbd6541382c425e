package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// demo is the stage: two sites, and a shell between them.
type demo struct {
	*shell
	outside, inside *site
	harbor          *harborFront // the front of inside
	samples         *samples
}

// play takes the images on the trip. Any error ends it.
func (d *demo) play(ctx context.Context) error {
	d.say("ferry carries container images across an air gap. Here two registries on this")
	d.say("machine play the two sites, OUTSIDE and INSIDE, and the folder usb plays what")
	d.say("is carried. Lines with $ are commands as you can type them. The sample images")
	d.say("are made of files of this machine's Go.\n")
	var err error
	if d.samples, err = makeSamples(ctx); err != nil {
		return err
	}
	if err := d.samples.pushFirst(ctx, d.outside.host); err != nil {
		return err
	}
	d.enter()
	for _, step := range []func(context.Context) error{d.makeKeys, d.export, d.look, d.verify, d.refuseDamaged, d.refuseForged,
		d.importAll, d.importAgain, d.copy, d.carryUpdate, d.pull, d.extract, d.compare} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// list runs lines until one fails.
func (d *demo) list(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := d.run(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) makeKeys(ctx context.Context) error {
	d.headline("Outside: make a key pair to sign with")
	return d.run(ctx, "ferry keygen")
}

func (d *demo) export(ctx context.Context) error {
	d.headline("Outside: pack the images, with all that belongs to them, and sign")
	var images strings.Builder
	for _, at := range slices.Sorted(maps.Keys(d.samples.first)) {
		fmt.Fprintf(&images, "%s/%s\n", d.outside.host, at)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "images.txt"), []byte(images.String()), 0o644); err != nil {
		return err
	}
	return d.list(ctx, "cat images.txt",
		"ferry export -f images.txt usb --name demo --version 1 \\\n    --key cosign.key --volume-size 16MiB",
		"ls -l usb/demo/1")
}

func (d *demo) look(ctx context.Context) error {
	d.headline("Anywhere: look at what is carried")
	if err := d.list(ctx, "ferry list usb", "ferry inspect usb --key cosign.pub", "ferry tree usb --key cosign.pub"); err != nil {
		return err
	}
	const pipe = `ferry tree usb | grep platform/app | cut -d ":" -f2 | grep -v '.sig'`
	tags, err := d.answer(ctx, pipe)
	if err != nil {
		return err
	}
	if tags != "1.0\n1.1\n" {
		return fmt.Errorf("step %d: the tags are %q, want 1.0 and 1.1", d.step, tags)
	}
	return nil
}

func (d *demo) verify(ctx context.Context) error {
	d.headline("Inside: check the signature and every byte, without any network")
	return d.run(ctx, "ferry verify usb --key cosign.pub")
}

func importLine(from string) string {
	return "ferry import " + from + " $INSIDE --key cosign.pub --create-projects"
}

func (d *demo) refuseDamaged(ctx context.Context) error {
	d.headline("Inside: one byte of a volume changed on the way is noticed")
	offset, err := middleOfLayer(filepath.Join(d.dir, "usb", "demo", "1", "volume-001.tar"))
	if err != nil {
		return err
	}
	if err := d.list(ctx, "cp -R usb damaged", overwrite("damaged/demo/1/volume-001.tar", offset)); err != nil {
		return err
	}
	for _, line := range []string{"ferry verify damaged --key cosign.pub", importLine("damaged")} {
		if err := d.refused(ctx, line, 4); err != nil {
			return err
		}
	}
	return d.nothingTagged()
}

func (d *demo) refuseForged(ctx context.Context) error {
	d.headline("Inside: one byte of the signed manifest changed, and nothing is begun")
	info, err := os.Stat(filepath.Join(d.dir, "usb", "demo", "1", "bundle.json"))
	if err != nil {
		return err
	}
	if err := d.list(ctx, "cp -R usb forged", overwrite("forged/demo/1/bundle.json", info.Size()/2)); err != nil {
		return err
	}
	before := d.inside.writes.Load()
	if err := d.refused(ctx, importLine("forged"), 3); err != nil {
		return err
	}
	if n := d.inside.writes.Load() - before; n > 0 {
		return fmt.Errorf("step %d: the refused import wrote %d times to the registry", d.step, n)
	}
	return d.nothingTagged()
}

func (d *demo) nothingTagged() error {
	if n := d.harbor.tags(); n > 0 {
		return fmt.Errorf("step %d: the registry has %d tags after a refused import", d.step, n)
	}
	d.say("The registry inside has no tag.")
	return nil
}

// overwrite returns the command that puts an X at an offset of a file.
func overwrite(file string, offset int64) string {
	return fmt.Sprintf("printf X | dd of=%s \\\n    bs=1 seek=%d conv=notrunc status=none", file, offset)
}

// middleOfLayer returns an offset in the middle of the first large entry of a
// volume, where there is no X yet.
func middleOfLayer(volume string) (offset int64, err error) {
	f, err := os.Open(volume)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const large = 256 << 10 // bytes
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return 0, fmt.Errorf("%s has no large entry: %w", volume, err)
		}
		if h.Size < large {
			continue
		}
		// A tar.Reader stands where the content begins.
		offset, err = f.Seek(h.Size/2, io.SeekCurrent)
		if err != nil {
			return 0, err
		}
		for b := []byte{0}; ; offset++ {
			if _, err := f.ReadAt(b, offset); err != nil || b[0] != 'X' {
				return offset, err
			}
		}
	}
}

func (d *demo) importAll(ctx context.Context) error {
	d.headline("Inside: verify the whole bundle and push it")
	return d.run(ctx, importLine("usb"))
}

func (d *demo) importAgain(ctx context.Context) error {
	d.headline("Inside: the same again moves nothing")
	before := d.inside.writes.Load()
	if err := d.run(ctx, importLine("usb")); err != nil {
		return err
	}
	if n := d.inside.writes.Load() - before; n > 0 {
		return fmt.Errorf("step %d: the second import wrote %d times to the registry", d.step, n)
	}
	return nil
}

func (d *demo) copy(ctx context.Context) error {
	d.headline("Inside: keep a copy, verified on the way")
	return d.list(ctx, "ferry copy usb archive --key cosign.pub", "ferry list archive")
}

func (d *demo) carryUpdate(ctx context.Context) error {
	d.headline("Next month: carry only what the site does not have")
	if err := pushAll(ctx, d.outside.host, d.samples.update); err != nil {
		return err
	}
	err := d.list(ctx,
		"ferry export $OUTSIDE/platform/app:1.2 usb --name demo --version 2 \\\n    --key cosign.key --base usb/demo/1",
		"ferry list usb",
		importLine("usb/demo/2"),
		"ferry tags $INSIDE/platform/app")
	if err != nil {
		return err
	}
	latest, err := d.answer(ctx, "ferry latest $INSIDE/platform/app")
	if err != nil {
		return err
	}
	if latest != "1.2\n" {
		return fmt.Errorf("step %d: the latest tag is %q, want 1.2", d.step, latest)
	}
	return nil
}

func (d *demo) pull(ctx context.Context) error {
	d.headline("Inside: pull an image, with its signature, to a folder and to a file")
	const pull = "ferry pull $INSIDE/" + signedName
	return d.list(ctx, pull+" app-layout", pull+" app.tar")
}

func (d *demo) extract(ctx context.Context) error {
	d.headline("Inside: extract files")
	gofmt := filepath.Join("bin", "gofmt")
	if runtime.GOOS == "windows" {
		gofmt += ".exe"
	}
	return d.list(ctx,
		"ferry extract $INSIDE/platform/app:$(ferry latest $INSIDE/platform/app) app",
		"cat app/etc/app/version",
		fmt.Sprintf("cmp app/%s%s %s", goDir, filepath.ToSlash(gofmt), quote(filepath.Join(d.samples.goroot, gofmt))),
		"ferry extract app-layout sources --path "+goDir+"src/net/http",
		"ferry extract $INSIDE/tools/runtime:1.0 arm --platform linux/arm64",
		"ferry extract $INSIDE/platform/notes:1.0 notes",
		"cat notes/NOTES.txt")
}

func (d *demo) compare(ctx context.Context) error {
	d.headline("What is inside is what was outside")
	c := comparison{ctx: ctx, outside: d.outside.host, inside: d.inside.host, known: map[string]bool{}}
	for _, path := range []string{"platform/app", "platform/base", "platform/notes", "tools/runtime"} {
		if err := c.repository(path, d.say); err != nil {
			return err
		}
	}
	// Index, two children, base, notes, three versions, signature, SBOM.
	if want := 10; len(c.known) != want {
		return fmt.Errorf("step %d: %d manifests were compared, want %d", d.step, len(c.known), want)
	}
	digest, err := d.samples.signed.Digest()
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(signedName, ":")
	if err := checkSignature(ctx, d.inside.host, path, digest, &d.samples.vendor.PublicKey); err != nil {
		return err
	}
	d.say("%d tags and %d manifests are the same, byte for byte: all platforms, the", c.tags, len(c.known))
	d.say("signature of %s, which holds, and its SBOM.", signedName)
	return nil
}
