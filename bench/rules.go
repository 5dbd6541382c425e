package main

// verdict is one promise about speed, and whether it was kept.
type verdict struct {
	Rule  string  `json:"rule"`
	Value float64 `json:"value"` // 0 when it was not measured
	Limit float64 `json:"limit"` // the largest value that keeps it
	State string  `json:"state"`
}

const (
	holds       = "holds"
	broken      = "broken"
	notMeasured = "not measured"
)

// judge returns what the measurements say about what ferry promises.
func judge(r results) []verdict {
	of := func(operation, contender string) float64 { return secondsOf(r.Summary, operation, contender) }
	tool := func(operation string) float64 { return fastestTool(r.Summary, operation).Seconds }
	again := find(r.Summary, "again", "ferry")
	if again.Seconds == 0 {
		again = find(r.Summary, "again", "ferry-hash")
	}
	return []verdict{
		judged("1 export / floor", ratio(of("export", "ferry"), of("export", "floor")), 1.1),
		judged("1 export / fastest tool", ratio(of("export", "ferry"), tool("export")), 0.9),
		judged("2 import that hashes / floor", ratio(of("import", "ferry-hash"), of("import", "floor")), 1.05),
		judged("2 import that hashes / fastest tool", ratio(of("import", "ferry-hash"), tool("import")), 1),
		judged("2 import / floor without hash", ratio(of("import", "ferry"), of("import", "floor-nohash")), 1.1),
		judged("2 import / fastest tool", ratio(of("import", "ferry"), tool("import")), 0.75),
		judged("2 S3 to registry / copy out, then fastest tool", ratio(of("s3-import", "ferry"), tool("s3-import")), 0.75),
		judged("3 import again, requests for each image", ratio(float64(again.Requests), float64(r.Workload.Images)), 1),
		judged("3 import again / skopeo", ratio(again.Seconds, of("again", "skopeo")), 0.05),
		judged("3 import again / crane", ratio(again.Seconds, of("again", "crane")), 0.05),
		judged("3 import again / imgpkg", ratio(again.Seconds, of("again", "imgpkg")), 1),
		judged("4 registry to registry / fastest tool", ratio(of("copy", "ferry"), tool("copy")), 0.9),
		judged("4 registry to registry, full / fastest tool", ratio(of("copy-again", "ferry"), tool("copy-again")), 0.9),
		judged("4 export into S3 / export to a file", ratio(of("s3-export", "ferry"), of("export", "ferry")), 1.25),
	}
}

func judged(rule string, value, limit float64) verdict {
	v := verdict{rule, value, limit, holds}
	switch {
	case value == 0:
		v.State = notMeasured
	case value > limit:
		v.State = broken
	}
	return v
}
