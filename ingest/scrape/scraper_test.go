package scrape_test

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/value"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/scrape"
)

const plainText = "text/plain; version=0.0.4; charset=utf-8"

// The API reads targets through these.
var (
	_ v1.TargetRetriever      = scrape.Merged(nil)
	_ v1.ScrapePoolsRetriever = scrape.Merged(nil)
)

// TestFileDiscovery shows that targets come and go with a file, that those that go
// end with stale markers, and what is told of targets to the API.
func TestFileDiscovery(t *testing.T) {
	dir := t.TempDir()
	list := func(text string) {
		next := filepath.Join(dir, "next")
		require.NoError(t, os.WriteFile(next, []byte(text), 0o600))
		require.NoError(t, os.Rename(next, filepath.Join(dir, "targets.json")))
	}
	address := target(t, plainText, func() string { return "answer 42\n" })
	list(`[]`)
	r := start(t, scrape.Options{Dir: dir}, job("files", nil, "file_sd_configs: [{files: [targets.json], refresh_interval: 100ms}]"))
	list(`[{"targets": ["` + address + `"], "labels": {"room": "3"}}]`)
	r.wholeScrapes(2)
	require.Contains(t, r.named("answer"), `{__name__="answer", instance="`+address+`", job="files", room="3"}`)
	targets := scrape.Merged{r.scraper.Targets(), r.scraper.Targets()}
	require.Len(t, targets.TargetsActive()["files"], 2)
	require.Equal(t, []string{"files"}, targets.ScrapePools())
	c, err := targets.ScrapePoolConfig("files")
	require.NoError(t, err)
	require.Equal(t, "files", c.JobName)
	_, err = targets.ScrapePoolConfig("other")
	require.Error(t, err)
	require.Zero(t, targets.TargetsDroppedCounts()["files"])
	require.Empty(t, targets.TargetsDropped()["files"])

	list(`[]`)
	r.until("stale markers", func() bool {
		s := r.only("answer").Samples
		return s[len(s)-1].Bits == value.StaleNaN
	})
	r.until("no target", func() bool { return len(r.scraper.Targets().TargetsActive()["files"]) == 0 })
}

// TestDeadTarget shows that the series of a target that dies end at its first failed
// scrape, with up at 0.
func TestDeadTarget(t *testing.T) {
	var dead atomic.Bool
	address := target(t, plainText, func() string {
		if dead.Load() {
			panic(http.ErrAbortHandler)
		}
		return "answer 42\n"
	})
	r := start(t, scrape.Options{}, job("dies", []string{address}))
	r.wholeScrapes(1)
	dead.Store(true)
	r.until("up 0", func() bool {
		s := r.only("up").Samples
		return s[len(s)-1].Bits == math.Float64bits(0)
	})
	s := r.only("answer").Samples
	require.Equal(t, value.StaleNaN, s[len(s)-1].Bits)
}

// TestHugeLabel shows that a target whose label is longer than labels.Labels can hold fails its scrape, and nothing else.
func TestHugeLabel(t *testing.T) {
	huge := "answer{a=\"" + strings.Repeat("x", 17<<20) + "\"} 42\n"
	r := start(t, scrape.Options{}, fmt.Sprintf("- {job_name: huge, scrape_interval: 5s, static_configs: [{targets: [%q]}]}\n", target(t, plainText, func() string { return huge })))
	r.until("up 0", func() bool { return len(r.named("up")) == 1 })
	require.Equal(t, math.Float64bits(0), r.only("up").Samples[0].Bits)
	require.Empty(t, r.named("answer"))
}

// TestReload shows that a reload takes up changed jobs, and that a configuration that
// is wrong changes nothing and is answered with the job's name.
func TestReload(t *testing.T) {
	address := target(t, plainText, func() string { return "answer 42\nother 1\n" })
	r := start(t, scrape.Options{}, job("first", []string{address}))
	r.wholeScrapes(1)
	for text, says := range map[string]string{
		job("first", nil) + job("second", nil, "scrape_intervall: 1s"):                       `job "second": .*scrape_intervall`,
		job("first", nil) + job("third", nil, "scrape_timeout: 1h"):                          `job "third": .*line`,
		"- job_name: fourth\n  scrape_interval: 1s\n  scrape_timeout: 2s\n":                  `"fourth"`,
		job("twice", nil) + job("twice", nil):                                                `"twice"`,
		"global: {external_labels: {a: b}}\nscrape_configs: []":                              "external_labels",
		"rule_files: [x.yml]\nscrape_configs: []":                                            "rule_files",
		job("cloud", nil, "ec2_sd_configs: [{region: x}]"):                                   `job "cloud"`,
		"- job_name: auth\n  basic_auth: {username: x}\n  authorization: {credentials: y}\n": "",
		"scrape_configs:\n  - job_name: deep\n    relabel_configs:\n    - action: unknown\n": "",
		"scrape_configs:\n  - job_name: regex\n    relabel_configs:\n    - regex: '('\n":     "",
		"no yaml: [":             "",
		"scrape_configs: [{}]\n": "",
	} {
		err := r.scraper.Apply([]byte(text))
		require.Error(t, err, text)
		require.Regexp(t, says, err.Error(), text)
		require.Contains(t, err.Error(), `input "test"`)
	}
	require.Equal(t, []string{"first"}, r.scraper.Targets().ScrapePools())
	require.NoError(t, r.scraper.Apply([]byte("global: {scrape_timeout: 50ms}\nscrape_configs:\n"+
		job("second", []string{address}, "metric_relabel_configs: [{source_labels: [__name__], regex: other, action: drop}]"))))
	r.until("second job", func() bool { return len(r.named("answer")) == 2 })
	require.Len(t, r.named("other"), 1)
	require.NoError(t, r.scraper.Apply([]byte("[]")))
	r.until("no job", func() bool { return len(r.scraper.Targets().ScrapePools()) == 0 })
}

// TestRepeated shows that a sample with a timestamp of its own that a target repeats
// is written once, as often as it is scraped, and again when it changes.
func TestRepeated(t *testing.T) {
	var text atomic.Value
	text.Store("heros_a 1.5 1700000000000\nheros_b -1 1700000000000\n")
	address := target(t, "text/plain; charset=utf-8", func() string { return text.Load().(string) })
	r := start(t, scrape.Options{Tolerant: true}, job("heros-datasources", []string{address}, "track_timestamps_staleness: false"))
	r.wholeScrapes(13)
	for _, name := range []string{"heros_a", "heros_b"} {
		require.Len(t, r.only(name).Samples, 1)
		require.EqualValues(t, 1700000000000, r.only(name).Samples[0].TimeMillis)
	}
	require.GreaterOrEqual(t, r.counter("varve_ingest_dropped_total"), 24.)
	text.Store("heros_a 1.5 1700000001000\nheros_b 0 1700000000000\n")
	r.until("changes", func() bool { return len(r.only("heros_a").Samples) == 2 && len(r.only("heros_b").Samples) == 2 })
}

// TestInputsBesideEachOther shows that several scrapers share a registry, and that
// one that has ended makes room for one of the same name.
func TestInputsBesideEachOther(t *testing.T) {
	reg := prometheus.NewRegistry()
	appendable := ingest.NewAppendable(ingesttest.NewSink(), ingest.Limits{}, ingest.NewMetrics(nil), "scrape")
	open := func(name string, tolerant bool) *scrape.Scraper {
		s, err := scrape.New(scrape.Options{Name: name, Appendable: appendable, Registerer: reg, Tolerant: tolerant})
		require.NoError(t, err)
		return s
	}
	a, b := open("a", true), open("b", true)
	_, err := scrape.New(scrape.Options{Name: "a", Appendable: appendable, Registerer: reg, Tolerant: true})
	require.ErrorContains(t, err, `input "a"`)
	_, err = reg.Gather()
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, open("a", true).Close())
	require.NoError(t, b.Close())
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}
