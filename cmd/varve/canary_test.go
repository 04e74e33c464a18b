package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/canary"
	"varve/compactor"
	"varve/config"
	"varve/internal/testkit"
	"varve/query"
)

// canaryStep is the interval of a canary in a kit: days go by in seconds.
const canaryStep = 30 * time.Minute

// canaryKit is a canary over an archive on a disk, with rollups and a clock of its own.
type canaryKit struct {
	*canary.Canary
	t         *testing.T
	dir       string
	now       time.Time
	conf      *config.Config
	archive   *archive.Archive
	engine    *query.Engine
	compactor *compactor.Compactor
	registry  *prometheus.Registry
	log       strings.Builder
	lie       func(text string, v promql.Vector) promql.Vector
	flipped   int64 // the time of a sample that is read wrong, Unix ms
}

func newCanaryKit(t *testing.T) *canaryKit {
	k := &canaryKit{t: t, dir: testkit.MemoryDir(t), now: time.Date(2026, 3, 1, 0, 0, 30, 0, time.UTC), conf: config.Default()}
	k.open()
	t.Cleanup(func() { require.NoError(t, k.engine.Close()) })
	return k
}

func (k *canaryKit) clock() time.Time { return k.now }

// open opens what a server does.
func (k *canaryKit) open() {
	o := testkit.Options()
	o.Now, o.Resolutions = k.clock, resolutions(k.conf)
	var err error
	o.Retention, err = retention(k.conf)
	require.NoError(k.t, err)
	k.archive = testkit.Open(k.t, k.dir, o)
	k.engine, err = query.NewEngine(query.Options{Now: k.clock})
	require.NoError(k.t, err)
	k.compactor = compactor.New(k.archive, compactor.Options{Now: k.clock, Share: 1, Policy: compactor.Policy{SealDelay: time.Hour, DropShareMax: 1}})
	k.registry = prometheus.NewRegistry()
	k.Canary = canary.New(canary.Options{
		Writer: k.archive, Reader: lyingReader{canaryReader{archiveStorage{k.archive}, k.engine}, k},
		Past:     canaryPast{k.archive, func() *config.Config { return k.conf }},
		Interval: canaryStep, CutAge: time.Hour, Resolutions: resolutions(k.conf), Now: k.clock, Registerer: k.registry,
		Logger: slog.New(slog.NewTextHandler(&k.log, nil)),
	})
}

// restart closes and opens it all.
func (k *canaryKit) restart() {
	require.NoError(k.t, errors.Join(k.engine.Close(), k.archive.Close()))
	k.open()
}

// run lets time go by, with a step each interval and the compactor's work each hour.
func (k *canaryKit) run(d time.Duration) {
	for end := k.now.Add(d); k.now.Before(end); k.now = k.now.Add(canaryStep) {
		k.Step(k.t.Context())
		if k.now.Minute() == 0 {
			require.NoError(k.t, k.archive.Maintain(true))
			_, err := k.compactor.Run(k.t.Context())
			require.NoError(k.t, err)
		}
	}
}

// count is the value of a metric for an age, or for all.
func (k *canaryKit) count(name, age string) (sum float64) {
	families, err := k.registry.Gather()
	require.NoError(k.t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && (age == "" || m.Label[0].GetValue() == age) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (k *canaryKit) mismatches(age string) float64 {
	return k.count("varve_canary_mismatches_total", age)
}

// allRight fails the test with what the canary logged if anything was amiss.
func (k *canaryKit) allRight() {
	k.t.Helper()
	require.Zero(k.t, k.mismatches("")+k.count("varve_canary_failures_total", ""), k.log.String()[:min(4000, k.log.Len())])
}

// lyingReader lies when it is told to.
type lyingReader struct {
	canaryReader
	k *canaryKit
}

func (r lyingReader) Aggregate(ctx context.Context, text string, at time.Time, resolution time.Duration) (promql.Vector, bool, error) {
	v, ok, err := r.canaryReader.Aggregate(ctx, text, at, resolution)
	if r.k.lie != nil {
		v = r.k.lie(text, v)
	}
	return v, ok, err
}

func (r lyingReader) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := r.canaryReader.Querier(mint, maxt)
	return lyingQuerier{q, r.k}, err
}

type lyingQuerier struct {
	storage.Querier
	k *canaryKit
}

func (q lyingQuerier) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return lyingSet{q.Querier.Select(ctx, sorted, h, ms...), q.k}
}

type lyingSet struct {
	storage.SeriesSet
	k *canaryKit
}

func (s lyingSet) At() storage.Series { return lyingSeries{s.SeriesSet.At(), s.k} }

type lyingSeries struct {
	storage.Series
	k *canaryKit
}

func (s lyingSeries) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return lyingIterator{s.Series.Iterator(nil), s.k}
}

type lyingIterator struct {
	chunkenc.Iterator
	k *canaryKit
}

func (i lyingIterator) At() (int64, float64) {
	t, v := i.Iterator.At()
	if t == i.k.flipped {
		v = math.Float64frombits(math.Float64bits(v) ^ 1)
	}
	return t, v
}

// TestCanary takes samples through everything that an archive does to them: cutting, sealing, rolling up, restarts, retention,
// deletes, and a clock that jumps. The canary finds nothing amiss until its reader lies.
func TestCanary(t *testing.T) {
	k := newCanaryKit(t)
	k.run(50 * time.Hour)
	k.allRight()
	for _, age := range []string{"fresh", "cut", "sealed", "rolled_up"} {
		require.NotZero(t, k.count("varve_canary_checked_samples_total", age), age)
	}
	days, err := k.archive.Days()
	require.NoError(t, err)
	require.True(t, days[0].Rolled)

	k.now = k.now.Add(7 * time.Hour)
	k.restart()
	k.run(20 * time.Hour)
	k.allRight()
	require.NotZero(t, k.count("varve_canary_checked_samples_total", "restart"))

	// A day off, a delete of one series, and of all for some hours, of which one is undone.
	k.now = k.now.Add(24 * time.Hour)
	k.restart()
	k.run(5 * time.Hour)
	remove := func(selector string, from, to time.Time) archive.Delete {
		matchers, err := k.engine.Parser().ParseMetricSelector(selector)
		require.NoError(t, err)
		d, ok, err := k.archive.Delete(t.Context(), archive.DeleteRequest{
			Matchers: [][]*labels.Matcher{matchers}, Selectors: []string{selector}, MinMillis: from.UnixMilli(), MaxMillis: to.UnixMilli(), Grace: time.Hour,
		})
		require.NoError(t, err)
		require.True(t, ok)
		return d
	}
	remove(`{pattern="steps"}`, k.now.Add(-100*time.Hour), k.now)
	remove(`varve_canary`, k.now.Add(-3*time.Hour), k.now.Add(-time.Hour))
	undone := remove(`{job="varve"}`, k.now.Add(-90*time.Hour), k.now.Add(-50*time.Hour))
	k.run(30 * time.Minute)
	_, err = k.archive.Undelete(undone.ID)
	require.NoError(t, err)
	k.run(50 * time.Hour)
	k.restart()
	k.run(73 * time.Hour)
	k.allRight()
	require.NotZero(t, k.count("varve_canary_checked_samples_total", "old"))

	// Samples are kept for three days, buckets of an hour for ever.
	const day = config.Keep(24 * time.Hour)
	k.conf.Retention = []config.RetentionRule{{Keep: map[string]config.Keep{"raw": 3 * day, "5m": 4 * day, "1h": config.Forever}}}
	rules, err := retention(k.conf)
	require.NoError(t, err)
	require.NoError(t, k.archive.SetRetention(rules))
	k.run(30 * time.Hour)
	k.allRight()
	// Old days are asked of at random, and so are resolutions.
	k.run(100 * time.Hour)
	k.allRight()

	k.lie = func(text string, v promql.Vector) promql.Vector {
		if strings.HasPrefix(text, "max_over_time") && len(v) > 0 {
			v[0].F++
		}
		return v
	}
	k.run(canaryStep)
	require.NotZero(t, k.mismatches("rolled_up"), k.log.String())
	require.Contains(t, k.log.String(), "max_over_time over a day")
	k.lie = nil
	require.Zero(t, k.mismatches("fresh"))
	k.flipped = k.now.Truncate(canaryStep).UnixMilli()
	k.run(canaryStep)
	require.NotZero(t, k.mismatches("fresh"))
	require.Contains(t, k.log.String(), "want=0x3ff0000000000000 got=0x3ff0000000000001")
}

// TestCanaryServes shows the canary in a server: off unless it is switched on, its series beside the server's own, and not in
// an output's way of a stop.
func TestCanaryServes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, filepath.Join(dir, "off"))
	_, body := p.call(http.MethodGet, "/metrics", nil)
	require.NotContains(t, body, "varve_canary_")
	p.terminate()

	conf := writeFile(t, "varve.yaml", "canary: {enabled: true, interval: 1s}\nself_scrape: {enabled: false}\n")
	p = start(t, filepath.Join(dir, "on"), "--config.file="+conf)
	written := regexp.MustCompile(`(?m)^varve_canary_written_samples_total (\d+)$`)
	require.Eventually(t, func() bool {
		_, body = p.call(http.MethodGet, "/metrics", nil)
		found := written.FindStringSubmatch(body)
		if found == nil {
			return false
		}
		samples, err := strconv.Atoi(found[1])
		return err == nil && samples >= 3*9 && samples%9 == 0 // Rounds have nine.
	}, patience, 50*time.Millisecond)
	require.Contains(t, body, `varve_canary_mismatches_total{age="fresh"} 0`)
	require.NotContains(t, body, `varve_canary_checked_samples_total{age="fresh"} 0`)
	require.Equal(t, "1", p.value(`varve_canary{pattern="constant"}`, time.Now()))
	p.terminate()
}
