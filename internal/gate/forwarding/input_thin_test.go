package forwarding_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
)

const (
	thinInterval = 2 * time.Second
	thinTTL      = 4 * time.Second
	thinSeries   = 50
)

// TestThinning shows that an input that thins stores for each series and each interval the last value there was, though it is
// killed again and again after it acknowledged, and that outputs get these points alone.
func TestThinning(t *testing.T) {
	peer := newVarve(t, func() string { return peerConfiguration })
	thin := fmt.Sprintf("  - {name: thin, path: /thin, downsample: %s, ttl: %s, remote_write: {}}\n", thinInterval, thinTTL)
	v := newVarve(t, func() string {
		return "web: {enable_lifecycle: true}\n" + targetConfiguration + thin +
			fmt.Sprintf("outputs:\n  - {name: out, batch_delay: 50ms, remote_write: {url: 'http://%s/api/v1/write'}}\n", peer.address)
	})
	peer.start()
	v.start()
	v.begun("out")
	client := &http.Client{Transport: &http.Transport{}, Timeout: readyTimeout}
	defer client.CloseIdleConnections()
	random := rand.New(rand.NewPCG(seed(t, envCycles), 1))
	series := func(i int) labels.Labels {
		return labels.FromStrings("__name__", "thinned", ledger.LabelGate, "thin", "series", fmt.Sprint(i))
	}
	// What was sent, by series, in the order of time.
	sent := make([][]prompb.Sample, thinSeries)
	kills := 0
	for end := time.Now().Add(6 * thinInterval); time.Now().Before(end); {
		m := prompb.WriteRequest{}
		for i := range thinSeries {
			if random.IntN(3) == 0 || i%10 == 0 && len(sent[i]) > 5 {
				continue // A tenth of the series ends soon.
			}
			s := prompb.Sample{Timestamp: time.Now().UnixMilli(), Value: random.Float64()}
			m.Timeseries = append(m.Timeseries, prompb.TimeSeries{Labels: prompb.FromLabels(series(i), nil), Samples: []prompb.Sample{s}})
			if n := len(sent[i]); n > 0 && sent[i][n-1].Timestamp == s.Timestamp {
				sent[i][n-1] = s
			} else {
				sent[i] = append(sent[i], s)
			}
		}
		require.NoError(t, post(t.Context(), client, v.server.URL("/thin/api/v1/write"), &m))
		if random.IntN(20) == 0 {
			v.kill()
			client.CloseIdleConnections()
			v.start()
			kills++
		}
	}
	// The last points are there when their intervals are over.
	want := contents{}
	for i, samples := range sent {
		if len(samples) > 0 {
			want[series(i).String()] = thinnedPoints(samples)
		}
	}
	var got contents
	require.Eventually(t, func() bool {
		got = read(t, v.server.URL(""), true, nil, is(ledger.LabelGate, "thin"))
		return len(differences(want, got)) == 0
	}, readyTimeout, 500*time.Millisecond)
	equal(t, "thinned", want, got)
	v.drain("out")
	equal(t, "outputs of what was thinned", want, read(t, peer.server.URL(""), true, nil, is(ledger.LabelGate, "thin")))

	// What was acknowledged is written though the input is configured no more.
	last := prompb.Sample{Timestamp: time.Now().UnixMilli(), Value: 42}
	m := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: prompb.FromLabels(series(1000), nil), Samples: []prompb.Sample{last}}}}
	require.NoError(t, post(t.Context(), client, v.server.URL("/thin/api/v1/write"), &m))
	thin = "  - {name: import, disabled: true, import: {}}\n"
	v.reload()
	rest := contents{series(1000).String(): thinnedPoints([]prompb.Sample{last})}
	require.Eventually(t, func() bool {
		got = read(t, v.server.URL(""), true, nil, is("series", "1000"))
		return len(differences(rest, got)) == 0
	}, readyTimeout, 500*time.Millisecond, "%v of %v", &got, rest)
	t.Logf("%d kills; %d points of %d series", kills, want.samples(), len(want))
}

// thinnedPoints are the points that thinning makes of samples that ascend in time: at each tick the last one in the time before it.
func thinnedPoints(samples []prompb.Sample) (out []point) {
	interval, ttl := thinInterval.Milliseconds(), thinTTL.Milliseconds()
	for tick := samples[0].Timestamp / interval * interval; tick < samples[len(samples)-1].Timestamp+ttl; tick += interval {
		for i := len(samples) - 1; i >= 0; i-- {
			if at := samples[i].Timestamp; at <= tick {
				if at > tick-ttl {
					out = append(out, point{millis: tick, bits: math.Float64bits(samples[i].Value)})
				}
				break
			}
		}
	}
	return out
}
