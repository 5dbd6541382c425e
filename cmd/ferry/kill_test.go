package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/faultproxy"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/verify"
)

// soak reports whether the long forms of tests are wanted; docs/soak.md has
// them all.
func soak() bool { return os.Getenv("FERRY_SOAK") != "" }

// choose returns the long form's value with FERRY_SOAK, else that of CI.
func choose[T any](long, short T) T {
	if soak() {
		return long
	}
	return short
}

const (
	// killJobs is how many blobs are under way at once when ferry is killed.
	killJobs = 2
	// killPart, in bytes, is how much may be sent again for each of them,
	// where a transfer can go on within a blob: a part of S3's.
	killPart = 8 << 20
)

// killSite is what transfers that are killed work on: a heavy and a signed
// image outside, and a bundle of both.
type killSite struct {
	*scripted
	dir         string
	samples     []*registrytest.Sample
	refs        []string
	out, in     *faultproxy.Proxy // before the registries, to count bytes
	s3          *storetest.S3
	key, public string
	wantVolume  string // sum of the volume, without the signature
	wantTree    string // sum of the bundle of before, which nothing may harm
}

func newKillSite(t *testing.T, sizes ...int) *killSite {
	t.Helper()
	t.Setenv("FERRY_TEST_NOW", "2026-11-21T12:00:00Z")
	outside, inside := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	k := &killSite{scripted: &scripted{site: &site{}, TB: t}, dir: t.TempDir(), s3: storetest.StartS3(t),
		samples: []*registrytest.Sample{registrytest.Heavy("team/heavy", sizes...), sampleOf(t, "team/signed")},
		key:     testKey(t, "one.key"), public: testKey(t, "one.pub"),
		out: faultproxy.Start(t, outside.URL, faultproxy.Options{}), in: faultproxy.Start(t, inside.URL, faultproxy.Options{})}
	if err := registrytest.PushAll(t.Context(), outside.Host, k.samples); err != nil {
		t.Fatal(err)
	}
	for _, s := range k.samples {
		for _, tag := range s.ImageTags() {
			k.refs = append(k.refs, k.out.Host+"/"+s.Repository+":"+tag)
		}
	}
	mustFerry(t, k.dir, k.export("usb")...)
	mustFerry(t, k.dir, "copy", "usb/n/1", "s3://"+k.s3.Bucket+"/usb", "--key", k.public)
	mustFerry(t, k.dir, "export", k.out.Host+"/team/signed:stable", "before", "--key", k.key, "--name", "n", "--version", "0", "--plain-http", k.out.Host)
	k.wantVolume = volumeSum(t, filepath.Join(k.dir, "usb/n/1"))
	k.wantTree = treeSum(t, filepath.Join(k.dir, "before/n/0"))
	return k
}

// export returns the arguments of an export of everything.
func (k *killSite) export(dest string) []string {
	return append(append([]string{"export"}, k.refs...), dest, "--key", k.key, "--name", "n", "--version", "1",
		"--jobs", fmt.Sprint(killJobs), "--plain-http", k.out.Host)
}

// volumeSum returns a sum of the only volume of a bundle without its
// signature, which is another one each time it is made.
func volumeSum(t testing.TB, folder string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "volume-001.tar"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(folder, "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := os.ReadFile(filepath.Join(folder, "bundle.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, signature)
	if !bytes.HasPrefix(content[512:], manifest) || at < 0 {
		t.Fatalf("the volume in %s does not begin with manifest and signature", folder)
	}
	clear(content[at : at+len(signature)])
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

// treeSum returns a sum of all names and contents below a folder.
func treeSum(t testing.TB, folder string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(h, "%q %d\n", rel, len(content))
		h.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// killTrial is a transfer that is killed, again and again, each time to a place
// of its own.
type killTrial struct {
	name    string
	args    func(place string) []string
	prepare func(t testing.TB, place string) // puts there what was there before
	killed  func(t testing.TB, place string) // checks what a killed transfer has left
	arrived func(t testing.TB, place string) // checks what a complete one has
	remove  func(t testing.TB, place string)
	sent    func() int64 // bytes of content that went in this transfer so far
	forget  func()       // begins to count anew
	perKill int64        // bytes that may be sent again after each kill
	perRun  int64        // bytes that a run may ask for and not read to the end
}

func (k *killSite) trials() []killTrial {
	return []killTrial{k.exportTrial(), k.exportS3Trial(), k.copyTrial(), k.importTrial()}
}

func (k *killSite) exportTrial() killTrial {
	trial := k.folderTrial("export to a file", k.export)
	trial.forget = k.out.Reset
	trial.sent = func() (n int64) {
		for _, r := range k.out.Requests() {
			if strings.Contains(r.Target, "/blobs/") {
				n += r.Out
			}
		}
		return n
	}
	return trial
}

func (k *killSite) copyTrial() killTrial {
	trial := k.folderTrial("copy", func(place string) []string {
		return []string{"copy", "s3://" + k.s3.Bucket + "/usb/n/1", place, "--key", k.public, "--jobs", fmt.Sprint(killJobs)}
	})
	trial.perRun = 2 << 20 // the first of a volume, where documents are, and what is read twice
	trial.forget = k.s3.Proxy.Reset
	trial.sent = func() (n int64) {
		for _, r := range k.s3.Proxy.Requests("GetObject") {
			n += r.Received
		}
		return n
	}
	return trial
}

// folderTrial is a transfer to a folder, where another bundle is.
func (k *killSite) folderTrial(name string, args func(place string) []string) killTrial {
	path := func(place string) string { return filepath.Join(k.dir, place) }
	return killTrial{
		name: name, args: args, perKill: killJobs * killPart,
		prepare: func(t testing.TB, place string) {
			if err := os.CopyFS(path(place), os.DirFS(path("before"))); err != nil {
				t.Fatal(err)
			}
		},
		killed: func(t testing.TB, place string) { k.checkBundles(t, path(place), false) },
		arrived: func(t testing.TB, place string) {
			k.checkBundles(t, path(place), true)
			mustBeAlone(t, path(place+"/n/1"))
		},
		remove: func(t testing.TB, place string) {
			if err := os.RemoveAll(path(place)); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// checkBundles checks in a folder the bundle of before, and the new one, which
// must be whole if it can be seen.
func (k *killSite) checkBundles(t testing.TB, folder string, complete bool) {
	t.Helper()
	if missing(filepath.Join(folder, "n/1/bundle.json")) {
		if complete {
			t.Error("there is no bundle.json")
		}
	} else if got := volumeSum(t, filepath.Join(folder, "n/1")); got != k.wantVolume {
		t.Errorf("the volume is %s, want %s", got, k.wantVolume)
	}
	if treeSum(t, filepath.Join(folder, "n/0")) != k.wantTree {
		t.Error("the bundle that was there before is not the same")
	}
}

// mustBeAlone checks that a bundle has nothing beside it that a killed writer
// has left.
func mustBeAlone(t testing.TB, folder string) {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if name := e.Name(); !slices.Contains([]string{"bundle.json", "bundle.sigstore.json", "volume-001.tar"}, name) &&
			!strings.Contains(name, ".tmp") {
			t.Errorf("%s is left in %s", name, folder)
		}
	}
}

func (k *killSite) exportS3Trial() killTrial {
	return killTrial{
		name: "export to S3", perKill: killJobs * killPart,
		args: func(place string) []string { return k.export("s3://" + k.s3.Bucket + "/" + place) },
		prepare: func(t testing.TB, place string) {
			mustFerry(t, k.dir, "copy", "before/n/0", "s3://"+k.s3.Bucket+"/"+place, "--key", k.public)
		},
		killed:  func(t testing.TB, place string) { k.checkBundles(t, k.s3.File(place), false) },
		arrived: func(t testing.TB, place string) { k.checkBundles(t, k.s3.File(place), true) },
		remove: func(t testing.TB, place string) {
			if err := os.RemoveAll(k.s3.File(place)); err != nil {
				t.Fatal(err)
			}
		},
		forget: k.s3.Proxy.Reset,
		sent:   func() int64 { return k.s3.Proxy.Sent("UploadPart") },
	}
}

func (k *killSite) importTrial() killTrial {
	var largest []int64
	for _, b := range k.samples[0].Blobs {
		largest = append(largest, b.Size)
	}
	slices.Sort(largest)
	var inFlight int64
	for _, size := range largest[len(largest)-killJobs:] {
		inFlight += size
	}
	old := *sampleOf(k, "team/single")
	url := func(place string, s *registrytest.Sample) string {
		return k.in.URL + "/v2/" + place + "/" + s.Repository
	}
	return killTrial{
		name: "import", perKill: inFlight, // an upload that nobody knows of can not be resumed
		args: func(place string) []string {
			return []string{"import", "usb/n/1", k.in.Host + "/" + place, "--key", k.public, "--jobs", fmt.Sprint(killJobs), "--plain-http", k.in.Host}
		},
		prepare: func(t testing.TB, place string) {
			old.Repository = place + "/team/heavy" // other tags in the same repository
			if err := old.Push(t.Context(), k.in.Host); err != nil {
				t.Fatal(err)
			}
		},
		killed: func(t testing.TB, place string) {
			for _, s := range k.samples {
				k.checkTags(t, s, url(place, s))
			}
		},
		arrived: func(t testing.TB, place string) {
			for _, s := range append([]*registrytest.Sample{&old}, k.samples...) {
				at := url(place, s)
				if s == &old {
					at = url(place, k.samples[0])
				}
				if err := k.sampleArrived(s, at); err != nil {
					t.Error(err)
				}
			}
		},
		remove: func(testing.TB, string) {},
		forget: k.in.Reset,
		sent: func() (n int64) {
			for _, r := range k.in.Requests() {
				if strings.Contains(r.Target, "/blobs/uploads/") {
					n += r.In
				}
			}
			return n
		},
	}
}

// checkTags checks that no tag of a sample is in the repository with the URL
// base before everything that it leads to is there, signatures included.
func (k *killSite) checkTags(t testing.TB, s *registrytest.Sample, base string) {
	t.Helper()
	var early []string
	for _, tag := range s.ImageTags() {
		switch content, err := k.get(base + "/manifests/" + tag); {
		case err == nil:
			early = append(early, tag)
			if !slices.ContainsFunc(s.Manifests, func(m registrytest.Content) bool { return bytes.Equal(m.Bytes, content) }) {
				t.Errorf("%s:%s names another manifest", base, tag)
			}
		case err.Error() != "404 Not Found":
			t.Errorf("%s:%s: %v", base, tag, err)
		}
	}
	if len(early) == 0 {
		return
	}
	whole := *s
	whole.Tags = maps.Clone(s.Tags)
	maps.DeleteFunc(whole.Tags, func(tag string, _ verify.Digest) bool { return slices.Contains(s.ImageTags(), tag) })
	if err := k.sampleArrived(&whole, base); err != nil {
		t.Errorf("the tags %q are there before: %v", early, err)
	}
}

// killAfter runs ferry and kills it after a pause; it reports whether ferry was
// still at work.
func killAfter(t testing.TB, pause time.Duration, dir string, args []string) bool {
	t.Helper()
	var talk bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ferry", args...)
	cmd.Dir, cmd.Stderr, cmd.Stdout = dir, &talk, io.Discard
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(pause, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	if err == nil {
		return false
	}
	if cmd.ProcessState.ExitCode() != -1 { // not by the signal
		t.Fatalf("ferry %q: %v\n%s", args, err, &talk)
	}
	return true
}

// TestKill kills transfers at random times, again and again until they come to
// their end, and looks each time at what is there: with FERRY_SOAK 300 times
// each. FERRY_SEED repeats a run.
func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FERRY_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("FERRY_SEED=%d", seed)
	large := choose(40<<20, 12<<20)
	k := newKillSite(t, large, 2<<20, large, 3<<20, 1<<20)
	for i, trial := range k.trials() {
		t.Run(trial.name, func(t *testing.T) {
			k.TB = t
			trial.run(t, k.dir, choose(300, 4), rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
}

// run kills the transfer as often, at times that are spread evenly over the
// time that one takes undisturbed.
func (trial *killTrial) run(t *testing.T, dir string, kills int, random *rand.Rand) {
	trial.prepare(t, "undisturbed")
	trial.forget()
	begin := time.Now()
	mustFerry(t, dir, trial.args("undisturbed")...)
	took, needed := time.Since(begin), trial.sent()
	trial.arrived(t, "undisturbed")
	trial.remove(t, "undisturbed")
	tally := killTally{}
	for n := 1; tally.kills < kills && !t.Failed(); n++ {
		place := fmt.Sprintf("place%d", n)
		trial.prepare(t, place)
		trial.forget()
		here := 0
		for tally.kills < kills && killAfter(t, time.Duration(random.Float64()*float64(took)), dir, trial.args(place)) {
			tally.note(trial.sent(), needed)
			here++
			trial.killed(t, place)
		}
		mustFerry(t, dir, trial.args(place)...)
		again := trial.sent() - needed
		tally.finish(again, here)
		if most := int64(here)*trial.perKill + int64(here+1)*trial.perRun; again > most {
			t.Errorf("%d bytes were sent again after %d kills, want %d at most", again, here, most)
		}
		trial.arrived(t, place)
		trial.remove(t, place)
	}
	t.Logf("undisturbed %v, %d bytes; %v", took.Round(time.Millisecond), needed, &tally)
	if tally.amid == 0 && kills > 100 {
		t.Error("no kill came amid the bytes")
	}
}

// killTally counts kills and what they have cost.
type killTally struct {
	kills, transfers, amid int
	again, most            int64 // bytes; most is the mean of the worst transfer
}

func (c *killTally) note(sent, needed int64) {
	c.kills++
	if sent > 0 && sent < needed {
		c.amid++
	}
}

func (c *killTally) finish(again int64, kills int) {
	c.transfers++
	c.again += again
	c.most = max(c.most, again/int64(max(1, kills)))
}

func (c *killTally) String() string {
	return fmt.Sprintf("%d kills in %d transfers, %d amid the first bytes; sent again %d bytes, %d a kill, %d a kill in the worst transfer",
		c.kills, c.transfers, c.amid, c.again, c.again/int64(max(1, c.kills)), c.most)
}
