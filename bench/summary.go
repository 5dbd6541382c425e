package main

import (
	"math"
	"slices"
)

// summary are the medians of one contender in one operation.
type summary struct {
	Operation     string  `json:"operation"`
	Contender     string  `json:"contender"`
	Kind          kind    `json:"kind"`
	Rounds        int     `json:"rounds"`
	Seconds       float64 `json:"seconds"`
	MinSeconds    float64 `json:"minSeconds"`
	MaxSeconds    float64 `json:"maxSeconds"`
	CPUSeconds    float64 `json:"cpuSeconds"`
	ServerSeconds float64 `json:"serverSeconds"`
	PeakMemory    int64   `json:"peakMemory"` // bytes, the largest of all rounds
	Requests      int     `json:"requests"`   // the most of all rounds
	DiskBytes     int64   `json:"diskBytes"`
	// ToFloor and ToTool are the wall times divided by those of the floor
	// and of the fastest other tool; 0 where there is none.
	ToFloor float64 `json:"toFloor"`
	ToTool  float64 `json:"toTool"`
}

// median returns the middle of values, or the mean of the two in the middle;
// of none it is 0.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratio returns a/b, and 0 when one of them is not known.
func ratio(a, b float64) float64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	return a / b
}

// summarize returns the medians, in the order of the first measurements.
func summarize(all []measurement) []summary {
	var list []summary
	for _, m := range all {
		if !slices.ContainsFunc(list, func(s summary) bool { return s.Operation == m.Operation && s.Contender == m.Contender }) {
			list = append(list, summaryOf(all, m.Operation, m.Contender, m.Kind))
		}
	}
	for i, s := range list {
		list[i].ToFloor = ratio(s.Seconds, secondsOf(list, s.Operation, "floor"))
		list[i].ToTool = ratio(s.Seconds, fastestTool(list, s.Operation).Seconds)
	}
	return list
}

func summaryOf(all []measurement, operation, contender string, k kind) summary {
	var wall, cpu, server []float64
	s := summary{Operation: operation, Contender: contender, Kind: k}
	for _, m := range all {
		if m.Operation == operation && m.Contender == contender {
			wall, cpu, server = append(wall, m.Seconds), append(cpu, m.UserSeconds+m.SysSeconds), append(server, m.ServerSeconds)
			s.PeakMemory, s.Requests = max(s.PeakMemory, m.PeakMemory), max(s.Requests, m.Requests)
			s.DiskBytes = m.DiskBytes
		}
	}
	s.Rounds, s.Seconds, s.CPUSeconds, s.ServerSeconds = len(wall), median(wall), median(cpu), median(server)
	s.MinSeconds, s.MaxSeconds = slices.Min(wall), slices.Max(wall)
	return s
}

// find returns the summary of a contender, or the zero summary.
func find(list []summary, operation, contender string) summary {
	for _, s := range list {
		if s.Operation == operation && s.Contender == contender {
			return s
		}
	}
	return summary{}
}

// secondsOf returns the median of a contender, or 0.
func secondsOf(list []summary, operation, contender string) float64 {
	return find(list, operation, contender).Seconds
}

// fastestTool returns the fastest of the other tools, or the zero summary.
func fastestTool(list []summary, operation string) summary {
	best := summary{Seconds: math.Inf(1)}
	for _, s := range list {
		if s.Operation == operation && s.Kind == kindTool && s.Seconds < best.Seconds {
			best = s
		}
	}
	if best.Contender == "" {
		return summary{}
	}
	return best
}
