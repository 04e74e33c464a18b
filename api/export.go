package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"varve/api/access"
	"varve/export/figure"
	"varve/export/result"
	"varve/export/text"
	"varve/query"
)

const (
	// exportsMax is how many exports are answered at once. Their queries wait for their turn like all others; this bounds what
	// is kept of them: a part of the result each, and the scratch file.
	exportsMax = 4
	// exportSpoolBytes bounds the scratch file of an export.
	exportSpoolBytes = 256 << 20
	// exportWriteTimeout is how long a client may take for a piece of an export.
	exportWriteTimeout = time.Minute
	// exportPixelsMax bounds a figure: a picture takes four bytes a pixel until it is written, and drawing it can't be ended.
	exportPixelsMax = 16_000_000
	// exportPointsMax bounds the points of time, a year and a half of seconds: where there are no values nothing is written, so nobody
	// would notice how long it takes.
	exportPointsMax = 50_000_000
	// exportDuration is exported where no start is given.
	exportDuration = time.Hour
)

// QuerySource returns a source of exports that runs queries with an engine and tells from which resolutions they were answered. An
// empty resolution is the engine's own choice. tooLarge tells of errors of the storage that they would not have come with less time.
func QuerySource(e promql.QueryEngine, s storage.Queryable, resolution string, tooLarge func(error) bool) (result.Source, error) {
	source := &querySource{engine: result.Engine{Engine: e, Storage: s, TooLarge: tooLarge}}
	if resolution != "" {
		chosen, err := query.ParseResolution(resolution)
		if err != nil {
			return nil, err
		}
		source.resolution = &chosen
	}
	return source, nil
}

type querySource struct {
	engine     result.Engine
	resolution *query.Resolution
}

// Range implements result.Source.
func (s *querySource) Range(ctx context.Context, text string, g result.Grid, bytesMax int64) (result.Answer, error) {
	if s.resolution != nil {
		ctx = query.WithResolution(ctx, *s.resolution)
	}
	ctx, executed := query.WithReport(ctx)
	a, err := s.engine.Range(ctx, text, g, bytesMax)
	if used, ok := executed(); ok {
		a.Resolution = used.String()
	}
	return a, err
}

// addExport adds the export of queries.
func (a *API) addExport(t *table) {
	slots := make(chan struct{}, exportsMax)
	t.add("/api/v1/export/query", access.Query, a.readForm(nameClient(a.whenReady(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			a.serveExport(w, r)
		default:
			w.Header().Set("Retry-After", retryAfterSeconds)
			respondError(w, http.StatusServiceUnavailable, errorUnavailable, fmt.Sprintf("%d exports are under way already: try again when one is done", exportsMax))
		}
	}))), http.MethodGet, http.MethodPost)
}

// serveExport answers with what range queries give as a file. The range may have any number of points: it is read in parts, each of
// which is a query of its own to the limits and in the list of what runs.
func (a *API) serveExport(w http.ResponseWriter, r *http.Request) {
	e, err := a.newExport(r)
	if err != nil {
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	}
	out := &exportWriter{w: w, control: http.NewResponseController(w)}
	defer out.done()
	begin := func(report result.Report) {
		out.begun = true
		h := w.Header()
		h.Set("Content-Type", e.format.contentType)
		h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", e.name()))
		// Forms that are written as they come don't know yet.
		for _, resolution := range report.Resolutions {
			h.Add(resolutionHeader, resolution)
		}
		if len(report.Resolutions) == 0 {
			h.Set("Trailer", resolutionHeader)
		}
	}
	stats, err := e.write(r.Context(), out, begin)
	switch {
	case err == nil:
		if w.Header().Get("Trailer") != "" {
			for _, resolution := range stats.Resolutions {
				w.Header().Add(resolutionHeader, resolution)
			}
		}
	case out.begun:
		// The status is sent. A connection that breaks tells that the file is not whole.
		panic(http.ErrAbortHandler)
	default:
		a.respondExportError(w, err)
	}
}

func (a *API) respondExportError(w http.ResponseWriter, err error) {
	_, wrong := errors.AsType[*result.TextError](err)
	switch {
	case wrong, errors.Is(err, result.ErrOption):
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	case errors.Is(err, result.ErrEmpty):
		respondError(w, http.StatusNotFound, errorNotFound, err.Error())
		return
	}
	code, ok := a.status(err)
	if !ok {
		code = query.Status(err)
	}
	kind := errorExecution
	switch code {
	case http.StatusInternalServerError:
		kind = errorInternal
	case http.StatusServiceUnavailable:
		kind = errorUnavailable
		w.Header().Set("Retry-After", retryAfterSeconds)
	}
	respondError(w, code, kind, err.Error())
}

// exportWriter gives the client a time for each piece.
type exportWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// Write implements io.Writer.
func (e *exportWriter) Write(b []byte) (int, error) {
	// Where there is no deadline to set, as in tests, there is none to miss.
	_ = e.control.SetWriteDeadline(time.Now().Add(exportWriteTimeout))
	return e.w.Write(b)
}

// done lifts the deadline, which is the connection's: it would end what is asked for on it later.
func (e *exportWriter) done() { _ = e.control.SetWriteDeadline(time.Time{}) }

// exportFormat is one that can be asked for.
type exportFormat struct {
	name, ending, contentType string
	write                     func(*export) func(context.Context, io.Writer, func(result.Report)) (result.Stats, error)
}

var exportFormats = []exportFormat{
	{"csv", "csv", "text/csv; charset=utf-8", textExport(result.CSV)},
	{"jsonl", "jsonl", "application/x-ndjson", textExport(result.JSONLines)},
	{"gnuplot", "gp", "text/plain; charset=utf-8", textExport(result.Gnuplot)},
	{"matplotlib", "py", "text/x-python; charset=utf-8", textExport(result.Matplotlib)},
	{"png", "png", "image/png", figureExport(figure.PNG)},
	{"svg", "svg", "image/svg+xml", figureExport(figure.SVG)},
}

// export is one request.
type export struct {
	options result.Options
	format  exportFormat
}

func (e *export) write(ctx context.Context, out io.Writer, begin func(result.Report)) (result.Stats, error) {
	return e.format.write(e)(ctx, out, begin)
}

func (e *export) name() string {
	return "varve-" + time.UnixMilli(e.options.Read.Grid.First).UTC().Format("20060102T150405Z") + "." + e.format.ending
}

func textExport(f result.Format) func(*export) func(context.Context, io.Writer, func(result.Report)) (result.Stats, error) {
	return func(e *export) func(context.Context, io.Writer, func(result.Report)) (result.Stats, error) {
		return func(ctx context.Context, out io.Writer, begin func(result.Report)) (result.Stats, error) {
			o := e.options
			if o.Format != result.CSVLong {
				o.Format = f
			}
			o.Begin, o.SpoolBytesMax = begin, exportSpoolBytes
			return result.Write(ctx, out, o)
		}
	}
}

func figureExport(f figure.Format) func(*export) func(context.Context, io.Writer, func(result.Report)) (result.Stats, error) {
	return func(e *export) func(context.Context, io.Writer, func(result.Report)) (result.Stats, error) {
		return func(ctx context.Context, out io.Writer, begin func(result.Report)) (result.Stats, error) {
			o := &e.options
			return figure.Write(ctx, out, figure.Options{
				Read: o.Read, Format: f, Title: o.Title, Unit: o.Unit, Width: o.Width, Height: o.Height, SeriesMax: o.SeriesMax, Begin: begin,
			})
		}
	}
}

// newExport reads the parameters. Its errors are the caller's fault.
func (a *API) newExport(r *http.Request) (*export, error) {
	form := r.Form
	e := &export{}
	name := form.Get("format")
	for _, f := range exportFormats {
		if f.name == name || name == "" && f.name == "csv" {
			e.format = f
		}
	}
	if e.format.name == "" {
		return nil, fmt.Errorf("format %q is none of csv, jsonl, gnuplot, matplotlib, png and svg", name)
	}
	resolution := form.Get("resolution")
	if resolution == "" {
		resolution = r.Header.Get(resolutionHeader)
	}
	source, err := QuerySource(a.o.Engine, a.o.Storage, resolution, func(err error) bool { return a.o.StorageStatus(err) == http.StatusUnprocessableEntity })
	if err != nil {
		return nil, err
	}
	grid, err := a.exportGrid(form)
	if err != nil {
		return nil, err
	}
	o := &e.options
	o.Read = result.Read{Source: source, Queries: form["query"], Grid: grid, Parser: a.o.Parser}
	o.Title, o.Unit = form.Get("title"), form.Get("unit")
	if err := exportLooks(form, o); err != nil {
		return nil, err
	}
	if err := o.Read.Validate(); err != nil {
		return nil, err
	}
	if n := grid.Points(); n > exportPointsMax {
		return nil, fmt.Errorf("%d points of time are more than %d: choose a longer step or less time, or export with varve export query", n, exportPointsMax)
	}
	return e, nil
}

// exportGrid reads start, end and step as query_range does. Without them it is the last hour, with up to a thousand steps.
func (a *API) exportGrid(form url.Values) (g result.Grid, err error) {
	read := func(name string, standard int64, parse func(string) (int64, error)) int64 {
		text := form.Get(name)
		if text == "" || err != nil {
			return standard
		}
		var v int64
		if v, err = parse(text); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return v
	}
	g.Last = read("end", a.o.Now().Truncate(time.Second).UnixMilli(), exportTime)
	g.First = read("start", g.Last-exportDuration.Milliseconds(), exportTime)
	g.Step = read("step", result.NiceStep(g.Last-g.First), exportStep)
	return g, err
}

// exportTime reads Unix seconds or RFC 3339.
func exportTime(s string) (int64, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e12 {
		return int64(math.Round(seconds * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%q is neither RFC 3339 nor Unix seconds", s)
	}
	return t.UnixMilli(), nil
}

// exportStep reads seconds or a duration.
func exportStep(s string) (int64, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e9 {
		return int64(math.Round(seconds * 1000)), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is neither seconds nor a duration such as 5m", s)
	}
	return time.Duration(d).Milliseconds(), nil
}

// exportLooks reads how the file looks.
func exportLooks(form url.Values, o *result.Options) error {
	for name, to := range map[string]*int{"width": &o.Width, "height": &o.Height, "max_series": &o.SeriesMax} {
		if text := form.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n <= 0 {
				return fmt.Errorf("%s: %q is not a positive number", name, text)
			}
			*to = n
		}
	}
	if cmp.Or(o.Width, result.WidthDefault)*cmp.Or(o.Height, result.HeightDefault) > exportPixelsMax {
		return fmt.Errorf("width and height: at most %d million pixels; varve export query draws larger figures", exportPixelsMax/1_000_000)
	}
	// What is held grows with it.
	if o.SeriesMax > result.SeriesMaxDefault {
		return fmt.Errorf("max_series: at most %d are drawn", result.SeriesMaxDefault)
	}
	for name, set := range map[string]func(){"long": func() { o.Format = result.CSVLong }, "header": func() {}} {
		if text := form.Get(name); text != "" {
			on, err := strconv.ParseBool(text)
			if err != nil {
				return fmt.Errorf("%s: %q is neither true nor false", name, text)
			}
			if on {
				set()
			}
			o.NoHeader = o.NoHeader || name == "header" && !on
		}
	}
	if text := form.Get("separator"); text != "" {
		r, size := utf8.DecodeRuneInString(text)
		if size != len(text) || !result.ValidSeparator(r) {
			return fmt.Errorf("separator: %q can't stand between fields", text)
		}
		o.Separator = r
	}
	switch form.Get("time") {
	case "", "rfc3339":
	case "unix":
		o.Times = text.UnixSeconds
	case "unix_ms":
		o.Times = text.UnixMillis
	default:
		return fmt.Errorf("time: %q is none of rfc3339, unix and unix_ms", form.Get("time"))
	}
	return nil
}
