package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/internal/transfer"
	"ferry/internal/ui"
)

// runPlan is what a dry run tells of the run: "plan" in JSON. All sizes are
// bytes.
type runPlan struct {
	Images   []imagePlan   `json:"images"`
	New      int64         `json:"newBytes"`
	Shared   int64         `json:"sharedBytes"`
	There    int64         `json:"thereBytes"`
	Repeated int64         `json:"repeatedBytes"`
	Move     int64         `json:"moveBytes"`
	Volumes  []volumePlan  `json:"volumes,omitempty"`
	Requests int           `json:"requests"`
	Disk     []diskPlan    `json:"disk"`
	Memory   int64         `json:"memoryBytes"`
	Estimate *estimatePlan `json:"estimate,omitempty"`
}

// imagePlan is what is moved of one image, its referrers included.
type imagePlan struct {
	Image  string `json:"image"`
	New    int64  `json:"newBytes"`
	Shared int64  `json:"sharedBytes"`
	There  int64  `json:"thereBytes"`
}

type volumePlan struct {
	Name  string `json:"name"`
	Size  int64  `json:"size"`
	There bool   `json:"there"`
}

// diskPlan is what is needed of one file system.
type diskPlan struct {
	Path   string `json:"path"`
	Needed int64  `json:"neededBytes"`
	Free   *int64 `json:"freeBytes,omitempty"` // nil when it is not told
}

// estimatePlan is how long the run takes, and what that was made of.
type estimatePlan struct {
	Least     float64 `json:"secondsLeast"`
	Most      float64 `json:"secondsMost,omitempty"` // 0: not known
	ReadRate  float64 `json:"readBytesPerSecond,omitempty"`
	WriteRate float64 `json:"writeBytesPerSecond,omitempty"`
	Latency   float64 `json:"requestSeconds,omitempty"`

	transfer.Measured `json:"-"`
	transfer.Estimate `json:"-"`
}

func newRunPlan(names []string, shares transfer.Shares) *runPlan {
	p := &runPlan{Images: []imagePlan{}, New: shares.Sum.New, Shared: shares.Sum.Shared, There: shares.Sum.There, Disk: []diskPlan{}}
	for i, s := range shares.Images {
		p.Images = append(p.Images, imagePlan{names[i], s.New, s.Shared, s.There})
	}
	return p
}

// addRoom tells what is needed of a disk; nil is none.
func (p *runPlan) addRoom(room *bundle.Room) {
	if room == nil {
		return
	}
	disk := diskPlan{Path: room.Folder, Needed: room.Needed}
	if room.Free >= 0 {
		disk.Free = &room.Free
	}
	p.Disk = append(p.Disk, disk)
}

// addSet tells of the volumes of a set, and what of them is to be written.
func (p *runPlan) addSet(set *bundle.Set, gap *bundle.Gap) {
	missing := map[string]bool{}
	for _, name := range gap.Volumes {
		missing[name] = true
	}
	for v, l := range set.Volumes() {
		name := bundle.VolumeName(v)
		p.Volumes = append(p.Volumes, volumePlan{name, l.Size, !missing[name]})
	}
	p.Move = gap.Bytes()
	p.Repeated = p.Move - p.New
	p.addRoom(gap.Room)
}

// What is held in memory at most, in bytes.
const (
	// streamMemory is what net/http holds of an HTTP/2 stream that is read
	// slower than it comes: golang.org/x/net/http2, transportDefaultStreamFlow.
	streamMemory = 4 << 20
	// pushMemory is a blob that is sent with the closing request.
	pushMemory = 512 << 10
)

// writeMemory returns what the buffers of a run take at most that reads blobs
// and writes them to store.
func (a *app) writeMemory(store bundle.Store) int64 {
	n := int64(a.flags.jobs) * (streamMemory + bundle.BufferSize)
	if _, ok := bundle.OnDisk(store); !ok {
		n += a.partsMemory()
	}
	return n
}

func (a *app) pushMemory() int64   { return int64(a.flags.jobs) * (streamMemory + pushMemory) }
func (a *app) layoutMemory() int64 { return int64(a.flags.jobs) * (streamMemory + layout.BufferSize) }

// measure adds an estimate, if there is anything to do and it can be measured.
// It writes to the disk only when there is room enough.
func (a *app) measure(ctx context.Context, p *runPlan, probe transfer.Probe, room *bundle.Room) {
	probe.Now = a.now
	var written int64
	if room != nil {
		written = room.Needed
		if room.Missing() == 0 && room.Free > 2*transfer.MaxProbe {
			probe.Folder = room.Folder
		}
	}
	if p.Move == 0 && p.Requests == 0 {
		return
	}
	m := probe.Measure(ctx)
	whole := room != nil && m.WriteRate > 0
	if !whole {
		written = 0
	}
	e, ok := m.Estimate(p.Move, written, p.Requests, a.flags.jobs, whole)
	if a.rate != nil && (!probe.Local || room == nil) { // from or to a host
		least := a.rate.Takes(p.Move)
		e.Least = max(e.Least, least)
		ok = e.Least > 0
		if e.Most > 0 {
			e.Most = max(e.Most, least)
		}
	}
	if ok {
		p.Estimate = &estimatePlan{e.Least.Seconds(), e.Most.Seconds(), m.ReadRate, m.WriteRate, m.Latency.Seconds(), m, e}
	}
}

// write writes the plan for people, below what tells of the images.
func (p *runPlan) write(w io.Writer) error {
	exact := func(n int64) string { return fmt.Sprintf("%d bytes (%s)", n, ui.Bytes(n)) }
	rows := [][]string{{"to move", exact(p.Move)}}
	if p.Repeated > 0 {
		rows = append(rows, []string{"of it again", exact(p.Repeated) + ", manifests and configs that stand in several volumes"})
	}
	for _, v := range p.Volumes {
		state := "to write"
		if v.There {
			state = "there"
		}
		rows = append(rows, []string{"volume", fmt.Sprintf("%s, %s, %s", v.Name, exact(v.Size), state)})
	}
	rows = append(rows, []string{"requests", "about " + strconv.Itoa(p.Requests)})
	if len(p.Disk) == 0 {
		rows = append(rows, []string{"disk", "none"})
	}
	for _, d := range p.Disk {
		free := "how much is free is not told"
		if d.Free != nil {
			free = exact(*d.Free) + " free"
		}
		rows = append(rows, []string{"disk", fmt.Sprintf("%s: %s needed, %s", d.Path, exact(d.Needed), free)})
	}
	rows = append(rows, []string{"memory", "at most " + ui.Bytes(p.Memory) + " of buffers"})
	if p.Estimate != nil {
		rows = append(rows, []string{"time", p.Estimate.String()})
	}
	return ui.Table(w, rows)
}

// String says how long it takes, and what was measured.
func (e *estimatePlan) String() string {
	least, most := ui.Duration(e.Estimate.Least), ui.Duration(e.Estimate.Most)
	took := "at least " + least
	switch {
	case e.Estimate.Most == 0:
	case e.Estimate.Most < e.Estimate.Least*5/4 || least == most:
		took = "about " + most
	default:
		took = least + " to " + most
	}
	var measured []string
	for _, rate := range []struct {
		verb  string
		value float64
	}{{"reads", e.ReadRate}, {"writes", e.WriteRate}} {
		if rate.value > 0 {
			measured = append(measured, fmt.Sprintf("%s %s/s", rate.verb, ui.Bytes(int64(rate.value))))
		}
	}
	if e.Measured.Latency > 0 {
		measured = append(measured, fmt.Sprintf("a request takes %.1f ms", 1000*e.Measured.Latency.Seconds()))
	}
	return took + " (measured: " + strings.Join(measured, ", ") + ")"
}

// writeShares writes a table of the images.
func (p *runPlan) writeShares(w io.Writer) error {
	rows := [][]string{append([]string{"IMAGE"}, shareHeads...)}
	for i, image := range p.Images {
		rows = append(rows, append([]string{image.Image}, p.shareCells(i)...))
	}
	return ui.Table(w, append(rows, p.sumRow(1)))
}

var shareHeads = []string{"NEW", "SHARED", "THERE"}

func (p *runPlan) shareCells(i int) []string {
	image := p.Images[i]
	return shareCells(image.New, image.Shared, image.There)
}

// sumRow returns the row of the sum, where so many columns stand before it.
func (p *runPlan) sumRow(before int) []string {
	row := make([]string, before)
	row[0] = "all"
	return append(row, shareCells(p.New, p.Shared, p.There)...)
}

func shareCells(numbers ...int64) []string {
	var cells []string
	for _, n := range numbers {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	return cells
}

// imageName returns how a table names an image.
func imageName(path string, tags []string, digest fmt.Stringer) string {
	if len(tags) == 0 {
		return path + "@" + digest.String()
	}
	return strings.TrimPrefix(path+":"+strings.Join(tags, ","), ":")
}

func itemNames(items []transfer.Item) []string {
	var names []string
	for _, i := range items {
		names = append(names, imageName(i.Name, i.Tags, i.Root.Digest))
	}
	return names
}

// roomError says that what is to be written does not fit. Nothing was written.
type roomError struct {
	to   string
	room bundle.Room
}

// checkRoom returns a [roomError] when a disk has not the room that writing to
// a place needs; nil is no disk.
func checkRoom(to string, room *bundle.Room) error {
	if room == nil || room.Missing() == 0 {
		return nil
	}
	return &roomError{to, *room}
}

func (e *roomError) Error() string {
	return fmt.Sprintf("%s: %v: %d bytes (%s) are needed, %d (%s) are free on the file system of %s", e.to, bundle.ErrNoSpace,
		e.room.Needed, ui.Bytes(e.room.Needed), e.room.Free, ui.Bytes(e.room.Free), e.room.Folder)
}

func (e *roomError) Unwrap() error { return bundle.ErrNoSpace }

// hint says what helps.
func (e *roomError) hint() string {
	return fmt.Sprintf("make room for %d more bytes (%s) there, or choose a place on a larger file system; nothing was written, and what was there is as it was",
		e.room.Missing(), ui.Bytes(e.room.Missing()))
}

// uploadRequests returns about how many requests it is to write the volumes of
// a gap into store; 0 for a folder.
func uploadRequests(store bundle.Store, set *bundle.Set, gap *bundle.Gap) int {
	s, ok := store.(interface{ Requests(size int64) int })
	if !ok {
		return 0
	}
	missing := map[string]bool{}
	for _, name := range gap.Volumes {
		missing[name] = true
	}
	n := 0
	for v, l := range set.Volumes() {
		if missing[bundle.VolumeName(v)] {
			n += s.Requests(l.Size)
		}
	}
	return n
}
