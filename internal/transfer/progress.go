package transfer

// Progress is told what a transfer is doing. Its methods are called from
// several goroutines at once and must return quickly. The zero [Silent] is
// one that does nothing.
type Progress interface {
	// Total announces bytes and items that will be moved in addition to what
	// was announced before, and how many more were found in place. Negative
	// numbers take back: they were found in place after all.
	Total(t Totals)

	// Start begins one item, a blob or a part of size bytes, and returns
	// what follows it.
	Start(name string, size int64) Task
}

// Totals counts what a transfer is going to do.
type Totals struct {
	Items, SkippedItems int
	Bytes, SkippedBytes int64 // bytes
}

func (t Totals) plus(o Totals) Totals {
	return Totals{t.Items + o.Items, t.SkippedItems + o.SkippedItems, t.Bytes + o.Bytes, t.SkippedBytes + o.SkippedBytes}
}

// Task follows one item of a [Progress].
type Task interface {
	// Add counts n more bytes as moved; a negative n takes back bytes that
	// have to be moved again.
	Add(n int64)
	// Done ends the item; err is nil when it arrived whole.
	Done(err error)
}

// Silent is a [Progress] that says nothing.
type Silent struct{}

// Total implements [Progress].
func (Silent) Total(Totals) {}

// Start implements [Progress].
func (Silent) Start(string, int64) Task { return silentTask{} }

type silentTask struct{}

func (silentTask) Add(int64)  {}
func (silentTask) Done(error) {}
