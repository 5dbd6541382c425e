package main

import (
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3},
	} {
		before := slices.Clone(c.values)
		if got := median(c.values); got != c.want || !slices.Equal(before, c.values) {
			t.Errorf("median(%v) = %v, want %v; now %v", before, got, c.want, c.values)
		}
	}
}

// sampleResults has an operation with a slow first round, and contenders whose
// names need escapes.
func sampleResults() results {
	add := func(r *results, operation, contender string, k kind, seconds ...float64) {
		for i, s := range seconds {
			r.Measurements = append(r.Measurements, measurement{Operation: operation, Contender: contender, Kind: k, Round: i + 1,
				usage: usage{Seconds: s, UserSeconds: s / 2, PeakMemory: int64(i+1) << 20}})
		}
	}
	var r results
	add(&r, "export", "ferry", kindFerry, 100, 2, 2.2)
	add(&r, "export", "floor", kindFloor, 2, 2, 2)
	add(&r, "export", "a<b>&\"c|d", kindTool, 4, 4, 4)
	add(&r, "export", "crane", kindTool, 5, 5, 1)
	add(&r, "export", "limit-cp", kindLimit, 1)
	add(&r, "s3-export", "ferry", kindFerry, 3)
	add(&r, "again", "ferry-hash", kindFerry, 1)
	r.Measurements[len(r.Measurements)-1].Requests = 24
	r.Workload.Images = 24
	r.Machine.CPU = "x|y"
	r.Summary = summarize(r.Measurements)
	r.Rules = judge(r)
	return r
}

func TestSummarize(t *testing.T) {
	r := sampleResults()
	got := r.Summary[0]
	want := summary{Operation: "export", Contender: "ferry", Kind: kindFerry, Rounds: 3, Seconds: 2.2, MinSeconds: 2, MaxSeconds: 100,
		CPUSeconds: 1.1, PeakMemory: 3 << 20, ToFloor: 1.1, ToTool: 0.55}
	if got.ToFloor, got.ToTool = round(got.ToFloor), round(got.ToTool); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if best := fastestTool(r.Summary, "export"); best.Contender != "a<b>&\"c|d" {
		t.Errorf("the fastest tool is %q", best.Contender)
	}
	if s := find(r.Summary, "s3-export", "ferry"); s.ToFloor != 0 || s.ToTool != 0 {
		t.Errorf("without floor and tools the ratios are %v and %v", s.ToFloor, s.ToTool)
	}
}

func round(f float64) float64 { return float64(int(f*1000+0.5)) / 1000 }

func TestJudge(t *testing.T) {
	states := make(map[string]string)
	for _, v := range sampleResults().Rules {
		states[v.Rule] = v.State
	}
	for rule, want := range map[string]string{
		"1 export / fastest tool":                 holds,
		"4 export into S3 / export to a file":     broken,
		"2 import / fastest tool":                 notMeasured,
		"3 import again / imgpkg":                 notMeasured,
		"3 import again, requests for each image": holds,
	} {
		if states[rule] != want {
			t.Errorf("%s: %q, want %q", rule, states[rule], want)
		}
	}
	if v := judged("r", 1.1, 1.1); v.State != holds {
		t.Errorf("a value at its limit: %s", v.State)
	}
}

func TestPicture(t *testing.T) {
	svg := picture(sampleResults())
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v\n%s", err, svg)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	for _, want := range []string{"Export to a local volume", "a<b>&\"c|d", "2.20 s"} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not in %q", want, texts)
		}
	}
	if slices.Contains(texts, "Registry to registry, full") {
		t.Error("an operation without measurements is in the picture")
	}
}

func TestPage(t *testing.T) {
	text := page(sampleResults())
	columnsOf := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			columnsOf = 0
			continue
		}
		n := strings.Count(line, "|") - strings.Count(line, `\|`)
		if columnsOf != 0 && n != columnsOf {
			t.Errorf("%d bars, want %d: %s", n, columnsOf, line)
		}
		columnsOf = n
	}
	if !strings.Contains(text, `x\|y`) || !strings.Contains(text, "| ferry | 2.20 |") {
		t.Errorf("the page is\n%s", text)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "64MiB": 64 << 20, "2GiB": 2 << 30, "3KiB": 3072,
		"": 0, "MiB": 0, "-1MiB": 0, "0": 0, "1MB": 0, "99999999999GiB": 0,
	} {
		got, err := parseSize(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-only export,sink":   `"sink" is not one of`,
		"-contenders imgpkg":  `"imgpkg" is not one of`,
		"-rounds 0":           "at least 1",
		"more":                `unexpected argument "more"`,
		"-only again,copy":    "",
		"-contenders skopeo":  "",
		"-size 1MB -rounds 1": "is no size",
	} {
		_, err := parseOptions(strings.Fields(args), io.Discard)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	for name, want := range map[string]string{"ferry": "ferry", "floor-nohash": "floor", "get+skopeo": "skopeo", "limit-cp": "limit"} {
		if got := family(name); got != want {
			t.Errorf("family(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestCPUFacts(t *testing.T) {
	for text, want := range map[string]bool{
		"model name\t: A CPU\nflags\t\t: fpu sha_ni\n":      true,
		"model name\t: A CPU\nFeatures\t: fp sha1 sha2\n":   true,
		"model name\t: A CPU\nflags\t\t: fpu sha_nix sha\n": false,
	} {
		name, sha := cpuFacts(text)
		if name != "A CPU" || sha != want {
			t.Errorf("cpuFacts(%q) = %q, %v, want %v", text, name, sha, want)
		}
	}
}

func TestHasFlag(t *testing.T) {
	help := "  --hash-file F   no\n  --hash MODE  yes"
	if !hasFlag(help, "--hash") || hasFlag("  --hash-file F", "--hash") {
		t.Error("a flag is taken for another")
	}
}

func TestRequestsIn(t *testing.T) {
	metrics := `# TYPE registry_http_requests_total counter
registry_http_requests_total{code="200",handler="base",method="get"} 3
registry_http_requests_total{code="404",handler="a}b",method="head"} 1.5e+03
registry_http_request_size_bytes_sum{handler="base"} 900
promhttp_metric_handler_requests_total{code="200"} 7
`
	if got := requestsIn(metrics); got != 1503 {
		t.Errorf("%d requests, want 1503", got)
	}
}
