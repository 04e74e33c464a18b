// Package chart draws the benchmarks' bar charts as SVG.
//
// A Bars is a chart: some places along the horizontal axis, each with one bar a
// server, in the same order and colours everywhere. The same figures give the same
// bytes, so that charts can be compared with those that are committed.
//
// The functions hold no state. They choose no figures and compute none.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Bars is a bar chart.
type Bars struct {
	Title string
	// Unit is what the vertical axis counts.
	Unit string
	// Places are the names along the horizontal axis.
	Places  []string
	Servers []Server
}

// Server is the bars of one server, one a place; NaN leaves a place empty.
type Server struct {
	Name    string
	Figures []float64
}

// palette has colours that people who see few of them can tell apart (Okabe and Ito).
var palette = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{204, 121, 167, 255}, color.RGBA{86, 180, 233, 255},
}

const (
	height      = 7 * vg.Centimeter
	placeWidth  = 3.3 * vg.Centimeter
	axisWidth   = 2 * vg.Centimeter
	widthLeast  = 12 * vg.Centimeter
	placeFilled = 0.7 // of the width of a place
	// legendRoom is how much higher than its bars a chart is, for each server's name.
	legendRoom = 0.12
)

// SVG draws the chart.
func (b Bars) SVG() ([]byte, error) {
	if len(b.Places) == 0 || len(b.Servers) == 0 {
		return nil, fmt.Errorf("draw %q: nothing to draw", b.Title)
	}
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = b.Title, b.Unit
	p.Y.Min = 0
	p.Legend.Top = true
	p.NominalX(b.Places...)
	width := max(widthLeast, placeWidth*vg.Length(len(b.Places))+axisWidth)
	bar := placeFilled * (width - axisWidth) / vg.Length(len(b.Places)*len(b.Servers))
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	p.Add(grid)
	for i, server := range b.Servers {
		if len(server.Figures) != len(b.Places) {
			return nil, fmt.Errorf("draw %q: %s has %d figures for %d places", b.Title, server.Name, len(server.Figures), len(b.Places))
		}
		figures := make(plotter.Values, len(server.Figures))
		for k, v := range server.Figures {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				figures[k] = v
			}
		}
		bars, err := plotter.NewBarChart(figures, bar)
		if err != nil {
			return nil, fmt.Errorf("draw %q: %w", b.Title, err)
		}
		bars.Color = palette[i%len(palette)]
		bars.LineStyle.Width = 0
		bars.Offset = bar * (vg.Length(i) - vg.Length(len(b.Servers)-1)/2)
		p.Add(bars)
		p.Legend.Add(server.Name, bars)
	}
	p.Y.Max *= 1 + legendRoom*float64(len(b.Servers))
	p.X.Min, p.X.Max = -0.5, float64(len(b.Places))-0.5
	canvas := vgsvg.New(width, height)
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw %q: %w", b.Title, err)
	}
	return out.Bytes(), nil
}
