package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// lab is everything that trials need: the servers, the programs, what they
// work on. All of it is below one folder.
type lab struct {
	options
	dir       string
	program   string // this one
	source    *server
	s3        *server
	full      *server // registry that has everything, from when it is needed
	plan      *plan
	planFile  string
	publicKey string
	secretKey string
	ferryHash bool              // ferry import knows --hash
	inputs    map[string]string // folders with the local result of a tool, by what contender.input says
	made      materialFacts
	talk      io.Writer // stderr
	count     int       // for names of folders
}

// materialFacts are about the files that the workload was made of.
type materialFacts struct {
	Folders     []string `json:"folders"`
	Files       int      `json:"files"`       // in own layers
	FilledBytes int64    `json:"filledBytes"` // random, where files were missing
}

// openLab makes the workload and starts the servers. The caller closes it,
// whether or not there was an error.
func openLab(ctx context.Context, o options, talk io.Writer) (*lab, error) {
	l := &lab{options: o, inputs: make(map[string]string), talk: talk}
	var err error
	if l.dir, err = os.MkdirTemp(o.temp, "ferry-bench"); err != nil {
		return l, err
	}
	if l.program, err = os.Executable(); err != nil {
		return l, err
	}
	if l.tools, err = filepath.Abs(o.tools); err != nil {
		return l, err
	}
	for _, folder := range []string{"home", "tmp"} {
		if err := os.Mkdir(filepath.Join(l.dir, folder), 0o755); err != nil {
			return l, err
		}
	}
	for _, step := range []func(context.Context) error{l.findFerry, l.startServers, l.makeKeys, l.fill} {
		if err := step(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

// close ends the servers and removes everything.
func (l *lab) close() error {
	for _, s := range []*server{l.source, l.s3, l.full} {
		s.stop()
	}
	if l.dir == "" {
		return nil
	}
	return os.RemoveAll(l.dir)
}

// say tells the user what is going on.
func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.talk, "bench: "+format+"\n", args...) }

func (l *lab) tool(name string) string { return filepath.Join(l.tools, name) }

// findFerry builds ferry as a release is built, unless one is given.
func (l *lab) findFerry(ctx context.Context) error {
	if l.ferry == "" {
		l.say("building ferry")
		l.ferry = filepath.Join(l.dir, "ferry")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", l.ferry, "ferry/cmd/ferry")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building ferry: %w\n%s", err, tail(string(out)))
		}
	}
	var err error
	if l.ferry, err = filepath.Abs(l.ferry); err != nil {
		return err
	}
	help, err := exec.CommandContext(ctx, l.ferry, "import", "--help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s import --help: %w", l.ferry, err)
	}
	l.ferryHash = hasFlag(string(help), "--hash")
	return nil
}

func (l *lab) startServers(ctx context.Context) (err error) {
	if l.source, err = startRegistry(ctx, l.tool("registry"), filepath.Join(l.dir, "source")); err != nil {
		return err
	}
	l.s3, err = startS3(ctx, l.tool("versitygw"), filepath.Join(l.dir, "s3"))
	return err
}

func (l *lab) makeKeys(ctx context.Context) error {
	prefix := filepath.Join(l.dir, "key")
	l.secretKey, l.publicKey = prefix+".key", prefix+".pub"
	_, err := l.measure(ctx, []command{{l.ferry, "keygen", "--output-key-prefix", prefix}})
	return err
}

// fill makes the workload in the source.
func (l *lab) fill(ctx context.Context) error {
	names, folders, err := goFolders(ctx)
	if err != nil {
		return err
	}
	l.say("making the workload")
	m := newMaterial(names, folders)
	defer m.close()
	blobs := filepath.Join(l.dir, "blobs")
	if err := os.Mkdir(blobs, 0o755); err != nil {
		return err
	}
	w, err := makeWorkload(ctx, blobs, m, l.size)
	if err != nil {
		return err
	}
	l.plan, l.planFile = &w.plan, filepath.Join(l.dir, "plan.json")
	l.made = materialFacts{folders, w.files, m.filled}
	l.say("%d images, %d blobs, %d MiB, made of %d files and %d MiB of random bytes",
		len(l.plan.images()), len(l.plan.Blobs), l.plan.bytes()>>20, w.files, m.filled>>20)
	return errors.Join(l.plan.write(l.planFile), w.push(ctx, l.source.host, l.jobs))
}

// environment is that of all contenders: nothing of the user's but PATH.
func (l *lab) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(l.dir, "home"), "TMPDIR=" + filepath.Join(l.dir, "tmp"),
		"COSIGN_PASSWORD=bench", "AWS_ENDPOINT_URL=http://" + l.s3.host, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true",
	}
}

// newFolder returns the name of a folder that is not there yet.
func (l *lab) newFolder(name string) string {
	l.count++
	return filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, l.count))
}

// fullTarget returns a registry that has everything, put there by the floor.
func (l *lab) fullTarget(ctx context.Context) (*server, error) {
	if l.full != nil {
		return l.full, nil
	}
	s, err := startRegistry(ctx, l.tool("registry"), l.newFolder("full"))
	if err != nil {
		return nil, err
	}
	l.full = s
	_, err = l.measure(ctx, []command{l.floor("floor-copy", "-from", l.source.host, "-to", s.host)})
	return s, err
}

// floor returns the command of a part of this program that knows the plan.
func (l *lab) floor(name string, args ...string) command {
	return append(command{l.program, name, "-plan", l.planFile, "-jobs", fmt.Sprint(l.jobs)}, args...)
}
