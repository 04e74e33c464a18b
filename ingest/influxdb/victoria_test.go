package influxdb_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
)

// TestVictoriaNames sends plain lines to VictoriaMetrics and to Varve: series, times and
// values are the same. What differs on purpose isn't sent: VictoriaMetrics keeps all
// characters of names, makes 0 of text, and leaves out either no field's name or, as
// here, that of every single field, whatever it is called.
func TestVictoriaNames(t *testing.T) {
	victoria := peers.StartVictoria(t, "-influxSkipSingleField")
	body := `cpu,host=a,cpu=cpu0 usage_user=1.5,usage_system=2i,up=t 1700000000000
temperature,room=x\ y value=21 1700000000000
mem,host=a\,b\=c free=12345678i,used=5u,swap=f 1700000001000
disk,path=/var/lib free=1e9,used=1 1700000002000
disk,path=/var/lib free=2e9,used=2 1700000003000
`
	sink := ingesttest.NewSink()
	require.Equal(t, 204, send(newInput(sink, influxdb.Options{DatabaseLabel: "db"}).Write(), "/write?db=d&precision=ms", body).Code)
	resp, _ := request(t, http.MethodPost, victoria.URL("/write?db=d&precision=ms"), body)
	require.Equal(t, 204, resp.StatusCode)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var want []string
	late := server.Wait(ctx, "VictoriaMetrics has all", func() (bool, error) {
		want = nil
		for _, series := range victoria.Exported(t) {
			for i, v := range series.Values {
				want = append(want, fmt.Sprintf("%s %d %v", labels.FromMap(series.Metric), series.Timestamps[i], v))
			}
		}
		slices.Sort(want)
		return slices.Equal(want, samples(sink)), nil
	})
	require.Equal(t, want, samples(sink))
	require.NoError(t, late)
}
