package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// Sizes in the picture, in pixels.
const (
	pictureWidth = 760
	labelWidth   = 120
	barsWidth    = 520
	rowHeight    = 20
	headHeight   = 36
)

// colours are those of the bars.
var colours = map[kind]string{kindFerry: "#1f77b4", kindTool: "#8c8c8c", kindFloor: "#2ca02c", kindLimit: "#98c898"}

// picture returns an SVG with bars of the wall times: one group for each
// operation, each with a scale of its own, as operations differ by a thousand.
func picture(r results) string {
	var body strings.Builder
	y := 8
	for _, op := range operations() {
		rows := r.rows(op.name)
		if len(rows) == 0 {
			continue
		}
		y += headHeight
		fmt.Fprintf(&body, `<text x="8" y="%d" class="head">%s</text>`+"\n", y-10, escape(op.title))
		longest := 0.0
		for _, s := range rows {
			longest = max(longest, s.Seconds)
		}
		for _, s := range rows {
			body.WriteString(bar(s, longest, y))
			y += rowHeight
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d">
<style>text { font: 12px sans-serif; fill: #222 } .head { font-weight: bold; font-size: 14px } .label { text-anchor: end }</style>
<rect width="100%%" height="100%%" fill="#fff"/>
%[3]s</svg>
`, pictureWidth, y+12, body.String())
}

// bar returns one line of the picture, whose top is at y.
func bar(s summary, longest float64, y int) string {
	width := max(1, int(ratio(s.Seconds, longest)*barsWidth))
	return fmt.Sprintf(`<text x="%d" y="%d" class="label">%s</text><rect x="%d" y="%d" width="%d" height="%d" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
		labelWidth-8, y+14, escape(s.Contender), labelWidth, y+3, width, rowHeight-6, colours[s.Kind],
		labelWidth+width+6, y+14, escape(fmt.Sprintf("%.2f s", s.Seconds)))
}

// escape returns text as it stands in XML.
func escape(text string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(text)) // a bytes.Buffer does not fail
	return b.String()
}
