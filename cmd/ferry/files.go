package main

const (
	// filesPerJob is how many file descriptors a job has at most: what it
	// reads, what it writes, and two folders of that when it is finished.
	filesPerJob = 4
	// filesBeside is how many there are beside those of jobs: standard
	// streams, the poller, idle connections, volumes of the bundle.
	filesBeside = 32
	// manyFiles is more than any number of jobs needs.
	manyFiles = 1 << 20
)

// affordableJobs returns how many of jobs can be under way at once with so many
// file descriptors: 1 at least.
func affordableJobs(jobs int, files uint64) int {
	left := int(min(files, manyFiles)) - filesBeside
	return max(1, min(jobs, left/filesPerJob))
}
