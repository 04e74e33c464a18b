package figure

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"varve/export/result"
)

// figure is what is drawn.
type figure struct {
	o       *Options
	lines   []*line
	names   []string
	missing result.Missing
	notes   []string
}

// dpi is that of screens, as CSS has it: a pixel is 0.75 points.
const dpi = 96

func points(pixels int) vg.Length { return vg.Length(pixels) * vg.Inch / dpi }

// colors tell lines from each other, on white too, and for most of those who see few colours.
var colors = []color.RGBA{
	{0x1f, 0x77, 0xb4, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x33, 0x77, 0xff}, {0x8c, 0x6d, 0x1f, 0xff},
	{0x6a, 0x4c, 0x9c, 0xff}, {0x17, 0xa2, 0xc4, 0xff}, {0xa6, 0x1c, 0x1c, 0xff}, {0x5f, 0x8a, 0x1f, 0xff}, {0x55, 0x5f, 0x6b, 0xff},
}

var (
	ink   = color.RGBA{0x22, 0x26, 0x2b, 0xff}
	faint = color.RGBA{0x6b, 0x72, 0x7a, 0xff}
	grid  = color.RGBA{0xdd, 0xe1, 0xe5, 0xff}
)

func style(size vg.Length, c color.Color, x draw.XAlignment, y draw.YAlignment) text.Style {
	f := plot.DefaultFont
	f.Variant = "Sans"
	return text.Style{Color: c, Font: font.From(f, size), XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

// write draws the figure and writes it.
func (f *figure) write(out io.Writer) error {
	w, h := points(f.o.Width), points(f.o.Height)
	if f.o.Format == SVG {
		c := vgsvg.New(w, h)
		f.draw(draw.NewCanvas(c, w, h))
		var b bytes.Buffer
		if _, err := c.WriteTo(&b); err != nil {
			return fmt.Errorf("draw: %w", err)
		}
		// Who hasn't the font shows another one without serifs. Quotes in texts are escaped, so this is no text.
		svg := bytes.ReplaceAll(b.Bytes(), []byte(`style="font-family:Liberation Sans;`), []byte(`style="font-family:'Liberation Sans',Arial,Helvetica,sans-serif;`))
		if _, err := out.Write(svg); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
	c := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dpi))
	f.draw(draw.NewCanvas(c, w, h))
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(out); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// margin is around all.
const margin = vg.Length(8)

func (f *figure) draw(c draw.Canvas) {
	c.FillPolygon(color.White, []vg.Point{{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y}})
	c = draw.Crop(c, margin, -margin, margin, -margin)
	c = f.legend(c)
	p := plot.New()
	p.Title.Text = cut(f.o.Title, style(12, ink, draw.XCenter, draw.YTop), c.Max.X-c.Min.X)
	p.Title.TextStyle = style(12, ink, draw.XCenter, draw.YTop)
	p.Title.Padding = 6
	low, high := f.values()
	first, last := f.seconds()
	f.axis(&p.X, first, last, style(8, ink, draw.XCenter, draw.YTop), timeTicks{f.o.Read.Grid.First, max(2, f.o.Width/110)})
	f.axis(&p.Y, low, high, style(8, ink, draw.XRight, draw.YCenter), valueTicks{max(2, f.o.Height/60), isBytes(f.o.Unit)})
	p.Y.Label.Text = cut(f.o.Unit, style(9, ink, draw.XCenter, draw.YBottom), (c.Max.Y-c.Min.Y)*3/4)
	p.Y.Label.TextStyle = style(9, ink, draw.XCenter, draw.YBottom)
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = grid, grid
	p.Add(g)
	for i, l := range f.lines {
		p.Add(&drawnLine{l, colors[i%len(colors)], f.o.Read.Grid.First})
	}
	p.Draw(c)
}

// isBytes tells whether a unit is better counted by 1024.
func isBytes(unit string) bool {
	switch strings.ToLower(unit) {
	case "b", "byte", "bytes":
		return true
	}
	return false
}

// axis sets the bounds, the looks and the ticks of one.
func (f *figure) axis(a *plot.Axis, from, to float64, s text.Style, ticks plot.Ticker) {
	a.Min, a.Max = from, to
	a.Scale = halves{}
	a.Padding = 0
	a.Color, a.Tick.Color = faint, faint
	a.Tick.Label, a.Tick.Length = s, 4
	a.Tick.Marker = ticks
}

// halves is a linear scale for the whole range of floats, of which the difference of two may be none.
type halves struct{}

// Normalize implements plot.Normalizer.
func (halves) Normalize(from, to, x float64) float64 { return (x/2 - from/2) / (to/2 - from/2) }

// seconds are the bounds of the axis of time, in seconds from the begin of the grid.
func (f *figure) seconds() (first, last float64) {
	g := f.o.Read.Grid
	if g.First == g.Last {
		half := float64(g.Step) / 2000
		return -half, half
	}
	return 0, float64(g.Last-g.First) / 1000
}

// values are the bounds of the axis of values: those of the values with some room, and zero where it isn't far.
func (f *figure) values() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range f.lines {
		for i := range l.buckets {
			low, high = math.Min(low, l.buckets[i].low.F), math.Max(high, l.buckets[i].high.F)
		}
	}
	if low == high {
		room := math.Max(math.Abs(low)/10, leastRoom)
		if low == 0 {
			room = 1
		}
		return clamp(low - room), clamp(high + room)
	}
	// Half of each, since the difference of two floats may be none; and enough that halves of the bounds differ.
	room := math.Max((high/2-low/2)/10, leastRoom)
	bottom, top := clamp(low-room), clamp(high+room)
	if low >= 0 && low <= high/2 {
		bottom = 0
	}
	if high <= 0 && high >= low/2 {
		top = 0
	}
	return bottom, top
}

// leastRoom is far above the numbers of which a half is no number any more.
const leastRoom = 1e-300

func clamp(v float64) float64 { return math.Max(-math.MaxFloat64, math.Min(math.MaxFloat64, v)) }

// drawnLine draws a line.
type drawnLine struct {
	*line
	color color.Color
	first int64
}

// Plot implements plot.Plotter.
func (l *drawnLine) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	sty := draw.LineStyle{Color: l.color, Width: 1.1}
	var run []vg.Point
	end := func() {
		if len(run) == 1 {
			c.DrawGlyph(draw.GlyphStyle{Color: l.color, Radius: 1.3, Shape: draw.CircleGlyph{}}, run[0])
		} else if len(run) > 1 {
			c.StrokeLines(sty, c.ClipLinesXY(run)...)
		}
		run = nil
	}
	add := func(t int64, v float64) {
		at := vg.Point{X: x(float64(t-l.first) / 1000), Y: y(v)}
		if n := len(run); n == 0 || run[n-1] != at {
			run = append(run, at)
		}
	}
	for i := range l.buckets {
		b := &l.buckets[i]
		if b.broken {
			end()
		}
		add(b.first.T, b.first.F)
		one, other := b.low, b.high
		if other.T < one.T {
			one, other = other, one
		}
		add(one.T, one.F)
		add(other.T, other.F)
		add(b.last.T, b.last.F)
	}
	end()
}

// legend draws the names and the note at the bottom and returns what is left for the plot. Names take at most two fifths of
// the height.
func (f *figure) legend(c draw.Canvas) draw.Canvas {
	sty := style(8, ink, draw.XLeft, draw.YBottom)
	row := sty.Font.Size * 1.5
	const swatch = vg.Length(20)
	width := c.Max.X - c.Min.X
	widest := vg.Length(0)
	named := min(len(f.names), result.NamedMax)
	for _, n := range f.names[:named] {
		widest = max(widest, sty.Width(n)+swatch+10)
	}
	columns := max(1, min(4, int(width/widest), named))
	rowsMax := max(1, int((c.Max.Y-c.Min.Y)*2/5/row))
	named = min(named, rowsMax*columns)
	rows := (named + columns - 1) / columns
	f.missing.Named = named
	f.notes = result.Notes(f.missing)
	note := style(7, faint, draw.XRight, draw.YBottom)
	c.FillText(note, vg.Point{X: c.Max.X, Y: c.Min.Y}, cut(strings.Join(append([]string{"UTC"}, f.notes...), "; "), note, width))
	bottom := c.Min.Y + row
	for i := range named {
		left := c.Min.X + width/vg.Length(columns)*vg.Length(i/rows)
		y := bottom + row*vg.Length(rows-1-i%rows)
		c.StrokeLine2(draw.LineStyle{Color: colors[i%len(colors)], Width: 2}, left, y+sty.Font.Size*0.4, left+swatch-6, y+sty.Font.Size*0.4)
		c.FillText(sty, vg.Point{X: left + swatch, Y: y}, cut(f.names[i], sty, width/vg.Length(columns)-swatch-6))
	}
	return draw.Crop(c, 0, 0, row*vg.Length(rows+1)+4, 0)
}

// cut shortens a text to a width.
func cut(s string, sty text.Style, width vg.Length) string {
	if sty.Width(s) <= width {
		return s
	}
	runes := []rune(s)
	low, high := 0, len(runes) // how many fit: at least low, less than high
	for low+1 < high {
		if n := (low + high) / 2; sty.Width(string(runes[:n])+"…") <= width {
			low = n
		} else {
			high = n
		}
	}
	return string(runes[:low]) + "…"
}
