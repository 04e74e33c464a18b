package ingest_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/scrape"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
)

// TestScrape shows that upstream's scrape manager writes through an Appendable: the
// samples of a target, its up, a stale marker for a series that goes away, and that a
// series with a label that is too long does not cost the others.
func TestScrape(t *testing.T) {
	sink := ingesttest.NewSink()
	var address *url.URL
	series := func(name string) []ingesttest.Sample {
		return sink.Written()[fmt.Sprintf(`{__name__=%q, instance=%q, job="test"}`, name, address.Host)].Samples
	}
	// A scrape that takes too long on a busy machine stores nothing of the target.
	var there atomic.Bool
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# TYPE stays counter\nstays 1\nlong{a=\"%020000d\"} 1\n", 0)
		if !there.Load() {
			fmt.Fprint(w, "goes 2\n")
		}
	}))
	defer target.Close()
	address, err := url.Parse(target.URL)
	require.NoError(t, err)
	sink.OnWrite = func() {
		if len(series("goes")) > 0 {
			there.Store(true)
		}
	}
	reg := prometheus.NewRegistry()
	manager, err := scrape.NewManager(&scrape.Options{DiscoveryReloadInterval: model.Duration(time.Millisecond), AppendMetadata: true},
		promslog.NewNopLogger(), nil, nil, ingest.NewAppendable(sink, ingest.Limits{}, ingest.NewMetrics(reg), "scrape"), reg)
	require.NoError(t, err)
	cfg, err := config.Load("scrape_configs: [{job_name: test, scrape_interval: 100ms, scrape_timeout: 100ms}]", promslog.NewNopLogger())
	require.NoError(t, err)
	require.NoError(t, manager.ApplyConfig(cfg))
	sets := make(chan map[string][]*targetgroup.Group, 1)
	sets <- map[string][]*targetgroup.Group{"test": {{Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address.Host)}}, Source: "0"}}}
	done := make(chan error, 1)
	go func() { done <- manager.Run(sets) }()
	require.Eventually(t, func() bool { return len(series("stays")) >= 2 && len(series("goes")) >= 2 }, 2*time.Minute, time.Millisecond, "two scrapes are written")
	manager.Stop()
	require.NoError(t, <-done)

	require.Equal(t, math.Float64bits(1), series("stays")[0].Bits)
	require.Contains(t, series("up"), ingesttest.Sample{TimeMillis: series("stays")[0].TimeMillis, Bits: math.Float64bits(1)})
	require.Equal(t, math.Float64bits(2), series("goes")[0].Bits)
	require.Equal(t, value.StaleNaN, series("goes")[1].Bits)
	require.Len(t, series("goes"), 2)
	require.Equal(t, model.MetricTypeCounter, sink.Families()["stays"].Type)
	require.Equal(t, model.MetricTypeGauge, sink.Families()["up"].Type, "what Prometheus adds itself is said of its family, too")
}
