package main

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

const (
	queryLimit = 2 * time.Minute
	// closeEnough is the relative difference up to which two values are close.
	closeEnough = 1e-9
)

// board is a dashboard with the time ranges of its panels and the directories of the
// servers that it is asked of.
type board struct {
	panels []panel
	// span is the time range of a panel, in seconds, both ends included.
	span func(panel) (start, end int64)
	// verb begins the names of the data directories.
	verb string
}

// query loads all servers with the same data, restarts them with cold files and
// asks the dashboard, server after server, query after query.
func query(ctx context.Context, b *bench) error {
	h, err := b.newHistory()
	if err != nil {
		return err
	}
	b.describe(h.d)
	questions := &board{panels: dashboard, span: h.span, verb: "query"}
	servers := make([]*peer.Server, len(b.specs))
	defer func() {
		for _, server := range servers {
			if server != nil {
				server.Kill()
			}
		}
	}()
	for i, spec := range b.specs {
		if servers[i], err = b.start(ctx, spec, "query-"+spec.Name); err != nil {
			return err
		}
		if err := h.load(ctx, b, servers[i]); err != nil {
			return err
		}
		b.say("query: loaded %d samples into %s", h.samples, spec.Name)
		b.entries[i].Query = &result.Query{Samples: h.samples, Reference: b.specs[b.reference()].Name, Queries: questions.points()}
	}
	return b.askBoard(ctx, questions, servers)
}

// askBoard asks all panels of all servers, cold and warm.
func (b *bench) askBoard(ctx context.Context, questions *board, servers []*peer.Server) error {
	for pass := range b.settings.repetitions {
		if err := b.coldPass(ctx, questions, servers, pass == 0); err != nil {
			return err
		}
	}
	for range b.settings.passes {
		b.warmPass(ctx, questions, servers)
	}
	b.tellQueries(questions)
	return ctx.Err()
}

// tellQueries prints what was measured.
func (b *bench) tellQueries(questions *board) {
	for k, p := range questions.panels {
		for i, spec := range b.specs {
			q := b.entries[i].Query.Queries[k]
			b.say("query %-20s %-16s first %s ms, warm %s ms, identical %t %s%s", p.name, spec.Name+":", milliseconds(q.ColdSeconds), milliseconds(q.WarmSeconds),
				q.Identical, q.Difference, q.Error)
		}
	}
}

// points are the queries with nothing measured yet.
func (q *board) points() []result.QueryPoint {
	var points []result.QueryPoint
	for _, p := range q.panels {
		start, end := q.span(p)
		points = append(points, result.QueryPoint{Name: p.name, Query: p.text(), RangeS: end - start, StepS: p.stepSeconds})
	}
	return points
}

// span is the time range of a panel, in seconds: all samples of its hosts, but for
// the first five minutes.
func (h *history) span(p panel) (start, end int64) {
	start, end = h.shortestStart/1000+300, h.endMillis/1000
	if p.long {
		start = h.startMillis/1000 + 300
	}
	return start - start%p.stepSeconds, end - end%p.stepSeconds
}

// reference is the server whose answers are the measure: the last Prometheus of
// the list (name a newer one last), or the first server.
func (b *bench) reference() int {
	found := 0
	for i, spec := range b.specs {
		if spec.Kind == peer.Prometheus {
			found = i
		}
	}
	return found
}

// coldPass restarts all servers, makes the kernel forget their files and asks each
// query once. The answers of the first such pass are compared.
func (b *bench) coldPass(ctx context.Context, questions *board, servers []*peer.Server, compare bool) error {
	for i, spec := range b.specs {
		if spec.Address != "" {
			continue
		}
		if err := servers[i].Stop(stopLimit); err != nil {
			return err
		}
		if err := peer.DropCached(filepath.Join(b.root, questions.verb+"-"+spec.Name)); err != nil {
			return fmt.Errorf("drop cached files of %s: %w", spec.Name, err)
		}
		var err error
		if servers[i], err = b.start(ctx, spec, questions.verb+"-"+spec.Name); err != nil {
			return err
		}
		servers[i].Settle(ctx, settleLimit)
	}
	for k := range questions.panels {
		answers := make([]answer, len(servers))
		for i, server := range servers {
			point := &b.entries[i].Query.Queries[k]
			body, took, _, err := b.askPanel(ctx, questions, server, k)
			if err == nil {
				answers[i], err = parseAnswer(body)
			}
			if err != nil {
				point.Error = err.Error()
				continue
			}
			point.ColdSeconds = append(point.ColdSeconds, took.Seconds())
			point.AnswerBytes, point.Points, point.Series = int64(len(body)), answers[i].points(), len(answers[i].series)
		}
		for i := range servers {
			point := &b.entries[i].Query.Queries[k]
			if compare && point.Error == "" && b.entries[b.reference()].Query.Queries[k].Error == "" {
				point.Identical, point.Close, point.Difference = compareAnswers(answers[i], answers[b.reference()])
			}
		}
	}
	return nil
}

// warmPass asks every query of every server once more.
func (b *bench) warmPass(ctx context.Context, questions *board, servers []*peer.Server) {
	for k := range questions.panels {
		for i, server := range servers {
			point := &b.entries[i].Query.Queries[k]
			if point.Error != "" || ctx.Err() != nil {
				continue
			}
			b.show("query %d of %d on %s", k+1, len(questions.panels), server.Spec.Name)
			_, took, cpu, err := b.askPanel(ctx, questions, server, k)
			if err != nil {
				point.Error = err.Error()
				continue
			}
			point.WarmSeconds = append(point.WarmSeconds, took.Seconds())
			point.WarmCPU = append(point.WarmCPU, cpu)
		}
	}
}

// askPanel asks one query and returns its answer, its time and the CPU seconds it
// cost the server.
func (b *bench) askPanel(ctx context.Context, questions *board, server *peer.Server, k int) ([]byte, time.Duration, float64, error) {
	start, end := questions.span(questions.panels[k])
	parameters := url.Values{
		"query": {questions.panels[k].text()}, "start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(end, 10)},
		"step": {strconv.FormatInt(questions.panels[k].stepSeconds, 10)},
	}
	before := server.CPUSecondsFine()
	body, took, err := ask(ctx, server, "query_range", parameters, queryLimit)
	return body, took, server.CPUSecondsFine() - before, err
}

// compareAnswers says whether an answer equals the reference's, whether it comes
// close, and where it first does not.
func compareAnswers(got, want answer) (identical, near bool, difference string) {
	if len(got.series) != len(want.series) {
		return false, false, fmt.Sprintf("%d series instead of %d", len(got.series), len(want.series))
	}
	identical, near = true, true
	differ := func(format string, arguments ...any) {
		if difference == "" {
			difference = fmt.Sprintf(format, arguments...)
		}
	}
	for i, g := range got.series {
		w := want.series[i]
		if g.name != w.name {
			return false, false, fmt.Sprintf("series %s instead of %s", g.name, w.name)
		}
		if len(g.samples) != len(w.samples) {
			differ("%s: %d points instead of %d", g.name, len(g.samples), len(w.samples))
			return false, false, difference
		}
		for k := range g.samples {
			if g.samples[k] == w.samples[k] {
				continue
			}
			identical = false
			differ("%s at %d: %s instead of %s at %d", g.name, g.samples[k].millis, g.samples[k].value, w.samples[k].value, w.samples[k].millis)
			near = near && g.samples[k].millis == w.samples[k].millis && isClose(g.samples[k].value, w.samples[k].value)
		}
	}
	return identical, near, difference
}

// isClose compares two value strings as numbers.
func isClose(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	return x == y || math.Abs(x-y) <= closeEnough*max(math.Abs(x), math.Abs(y))
}

// milliseconds prints a list of times.
func milliseconds(seconds []float64) string {
	text := ""
	for i, s := range seconds {
		if i > 0 {
			text += "/"
		}
		text += strconv.FormatFloat(s*1000, 'f', 0, 64)
	}
	return text
}
