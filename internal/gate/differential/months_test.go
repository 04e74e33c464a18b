package differential_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// monthConfiguration leaves all work of the compactor to the test, which asks for
// it. What arrives late is sealed again at once.
const monthConfiguration = `
storage: {memory: 256MiB}
web: {enable_admin_api: true, enable_lifecycle: true}
compactor: {interval: 24h, seal_delay: 0s, quiet: 0s, reseal_after: 0s}
self_scrape: {enabled: false}
log: {level: warn}
`

// monthRetention keeps samples for two days.
const monthRetention = "retention: [{raw: 2d, 5m: forever, 1h: forever}]\n"

const (
	dayFormat = "2006-01-02"
	// monthSeed makes the data, which is the same in every run but for its times.
	monthSeed = 4
	// askTimeout bounds what changes the archive, over all of its days.
	askTimeout = 5 * time.Minute
	// monthTimeMax is far more than one of these tests takes.
	monthTimeMax = time.Hour
)

// archived is a Varve of this test, which is killed and started again.
type archived struct {
	t       *testing.T
	dir     string
	address string
	server  *server.Server
}

// TestMonth2 shows that Varve answers a dashboard over a month like Debian's
// Prometheus 2.42, which has every sample, while Varve has those of the last two
// days and the rollups of all: after late samples, after samples expired, after
// kill -9, and after more of the compactor's work. Samples that are too old are
// refused and change nothing of that.
func TestMonth2(t *testing.T) {
	t.Parallel()
	compareMonth(t, server.Prometheus2(t), false)
}

// TestMonth3 shows the same of a Prometheus with the same engine, whose windows
// begin behind their left edge as Varve's do.
func TestMonth3(t *testing.T) {
	t.Parallel()
	compareMonth(t, server.Prometheus3(t), true)
}

// compareMonth takes Varve through a month. Modern tells that the binary is a 3.x.
func compareMonth(t *testing.T, binary string, modern bool) {
	t.Helper()
	if os.Getenv(envRehearsal) == "1" {
		t.Skip("no Prometheus takes Varve's place here: none has rollups")
	}
	began := time.Now()
	end, today := endOfMonth(began.UTC())
	m := newMonth(end, today, monthSeed)
	// One block of 60 days: nothing is compacted, and nothing is too old to be taken.
	reference := server.StartPrometheus(t, binary, "global: {}\n", "--web.enable-remote-write-receiver", "--enable-feature=native-histograms",
		"--storage.tsdb.retention.time=90d", "--storage.tsdb.min-block-duration=60d", "--storage.tsdb.max-block-duration=60d")
	v := startArchived(t)

	late, later := fill(t, m, reference.URL(""), v.server.URL(""))
	filled := time.Now()
	sealed := v.compact()
	require.GreaterOrEqual(t, len(sealed.Sealed), monthDays-1)
	v.take(late)
	again := v.compact()
	require.Len(t, again.Sealed, m.day(lateUntil-1)-m.day(lateFrom)+1, "late samples are of these days")
	require.Empty(t, again.Expired)
	v.configure(monthConfiguration + monthRetention)
	require.NoError(t, v.server.Signal(syscall.SIGHUP))
	compacted := time.Now()

	cut := v.expire(m)
	v.take(later)
	c := monthComparison{t: t, modern: modern, month: m, reference: reference.URL(""), base: v.server.URL(""), answers: map[string]answer{}}
	c.all(cut)
	first := time.Now()
	v.refuseOld(m)
	v.restart()
	c.all(cut)
	v.refuseOld(m)
	last := v.compact()
	require.Len(t, last.Sealed, 1, "the late samples behind the cut")
	require.Equal(t, cut.Format(dayFormat), last.Sealed[0].Day)
	require.Empty(t, last.Expired)
	c.all(cut)
	v.check()
	t.Logf("%d answers compared, %d points; of %d fitted ones %d have another value; largest relative error of exact ones %.2g, of %s",
		c.asked, c.points, c.fitted, c.fittedOff, c.errorMax, c.worst)
	require.Greater(t, c.fittedOff, c.fitted/4, "hardly anything was fitted to buckets: the comparison of those is worth nothing")
	t.Logf("fill %.1fs, seal and roll up %.1fs, expire and ask %.1fs, restart and ask %.1fs",
		filled.Sub(began).Seconds(), compacted.Sub(filled).Seconds(), first.Sub(compacted).Seconds(), time.Since(first).Seconds())
}

// endOfMonth is where the data end, and the day by which their ages are counted: the present one, and at most the one behind the data. At the
// next midnight what is kept must not change, so that before it the data end with the day before.
func endOfMonth(now time.Time) (end, today time.Time) {
	today = now.Truncate(24 * time.Hour)
	if now.Add(monthTimeMax).Truncate(24 * time.Hour).After(today) {
		return today.Add(-time.Hour), today
	}
	return now.Truncate(time.Hour), today
}

// fill writes the month to both and returns the requests of what Varve is to get
// after days were sealed, and after others expired.
func fill(t *testing.T, m *month, reference, varve string) (late, later [][]byte) {
	t.Helper()
	samples := 0
	for from := 0; from < monthMinutes; from += sliceMinutes {
		all, held := m.slice(from, min(from+sliceMinutes, monthMinutes))
		samples += count(all)
		body := encoded(t, all)
		status, text := write(t, reference, body)
		require.Equal(t, http.StatusNoContent, status, "prometheus: %s", text)
		if held > 0 {
			list := &late
			if from >= lateUntil {
				list = &later
			}
			*list = append(*list, encoded(t, all[len(all)-held:]))
			body = encoded(t, all[:len(all)-held])
		}
		status, text = write(t, varve, body)
		require.Equal(t, http.StatusNoContent, status, "varve: %s", text)
	}
	require.NotEmpty(t, late)
	require.NotEmpty(t, later)
	t.Logf("%d series, %d samples from %s to %s", len(m.series), samples, m.begin.Format(time.RFC3339), m.end.Format(time.RFC3339))
	return late, later
}

func encoded(t *testing.T, list []prompb.TimeSeries) []byte {
	t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: list}).Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, raw)
}

// write sends a request of remote write 1.0, as often as it is put off, which it is by a server whose disk has not answered for some seconds.
func write(t *testing.T, base string, body []byte) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	require.NoError(t, server.Wait(ctx, "a write is taken or refused", func() (bool, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/x-protobuf")
		request.Header.Set("Content-Encoding", "snappy")
		request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		status, text = do(t, request)
		return status != http.StatusServiceUnavailable, errors.New(text)
	}))
	return status, text
}

func do(t *testing.T, request *http.Request) (status int, text string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(b)
}

// startArchived starts a Varve without rules of retention.
func startArchived(t *testing.T) *archived {
	t.Helper()
	v := &archived{t: t, dir: t.TempDir()}
	var err error
	v.address, err = server.FreeAddress()
	require.NoError(t, err)
	v.configure(monthConfiguration)
	v.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("varve wrote: %s", v.server.Output())
		}
		v.server.Kill()
	})
	return v
}

func (v *archived) configure(text string) {
	require.NoError(v.t, os.WriteFile(filepath.Join(v.dir, "varve.yml"), []byte(text), 0o600))
}

func (v *archived) start() {
	v.t.Helper()
	var err error
	v.server, err = server.Start(server.Options{
		Binary: server.Binary(v.t, ""), Address: v.address,
		Args: []string{
			"serve", "--config.file", filepath.Join(v.dir, "varve.yml"), "--storage.path", filepath.Join(v.dir, "data"), "--web.listen-address", v.address,
		},
	})
	require.NoError(v.t, err)
	ctx, cancel := context.WithTimeout(v.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(v.t, v.server.WaitReady(ctx))
}

// take sends it requests that come late.
func (v *archived) take(bodies [][]byte) {
	v.t.Helper()
	for _, body := range bodies {
		status, text := write(v.t, v.server.URL(""), body)
		require.Equal(v.t, http.StatusNoContent, status, text)
	}
}

// restart kills it and starts it again.
func (v *archived) restart() {
	v.t.Helper()
	v.server.Kill()
	v.start()
}

// check has the product's own verb verify what is on the disk.
func (v *archived) check() {
	v.t.Helper()
	v.server.Kill()
	ctx, cancel := context.WithTimeout(v.t.Context(), askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, server.Binary(v.t, ""), "check", "data", filepath.Join(v.dir, "data")).CombinedOutput()
	require.NoError(v.t, err, "varve check data: %s", out)
}

// compacted is what a pass of the compactor did.
type compacted struct {
	Sealed, Rolled []struct {
		Day     string
		Samples int
	}
	Expired []struct {
		Level, Before string
		Days          int
		Samples       uint64
	}
}

// compact does all that is due at once, however much it drops.
func (v *archived) compact() compacted {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, v.server.URL("/api/v1/admin/compactor/run?wait=true&force=true"), http.NoBody)
	require.NoError(v.t, err)
	status, text := do(v.t, request)
	require.Equal(v.t, http.StatusOK, status, text)
	var run struct{ Data compacted }
	require.NoError(v.t, json.Unmarshal([]byte(text), &run), text)
	return run.Data
}

// get reads the data of an answer in JSON.
func (v *archived) get(path string, into any) {
	v.t.Helper()
	status, body, err := server.Get(v.t.Context(), v.server.URL(path))
	require.NoError(v.t, err)
	require.Equal(v.t, http.StatusOK, status, "%s: %s", path, body)
	require.NoError(v.t, json.Unmarshal(body, &struct{ Data any }{into}), "%s: %s", path, body)
}

// retentionStatus is what is known of the ages.
type retentionStatus struct {
	Today  string
	Levels []struct{ Level, Floor string }
	Next   *struct{ Why string }
	Kept   string
	Rules  []struct {
		Keep []struct {
			Level, Before          string
			Series, Samples, Bytes uint64
		}
	}
}

// expire lets samples expire and holds that all and only those did that are older
// than two days. It returns the begin of the first day that is kept.
func (v *archived) expire(m *month) time.Time {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), readyTimeout)
	defer cancel()
	var before retentionStatus
	require.NoError(v.t, server.Wait(ctx, "the rules are read again", func() (bool, error) {
		v.get("/api/v1/status/retention", &before)
		return before.Next != nil, fmt.Errorf("the status is %+v", before)
	}))
	require.NotZero(v.t, before.Rules[0].Keep[0].Samples, "the status tells what will go")
	run := v.compact()
	require.Len(v.t, run.Expired, 1, "samples alone expire: %+v", run)
	require.Equal(v.t, "raw", run.Expired[0].Level)

	var after retentionStatus
	v.get("/api/v1/status/retention", &after)
	today, err := time.Parse(dayFormat, after.Today)
	require.NoError(v.t, err)
	require.Equal(v.t, m.today.Format(dayFormat), after.Today)
	cut := today.AddDate(0, 0, -2)
	require.Equal(v.t, cut.Format(dayFormat), run.Expired[0].Before)
	require.Equal(v.t, int(cut.Sub(m.begin.Truncate(24*time.Hour))/(24*time.Hour)), run.Expired[0].Days)
	require.Equal(v.t, before.Rules[0].Keep[0].Samples, run.Expired[0].Samples, "what went is what the status told")
	require.Zero(v.t, after.Rules[0].Keep[0].Samples)
	require.Nil(v.t, after.Next)
	require.Empty(v.t, after.Kept)
	for _, level := range after.Levels {
		if level.Level == "raw" {
			require.Equal(v.t, cut.Format(dayFormat), level.Floor)
		} else {
			require.Empty(v.t, level.Floor, "buckets of %s are kept forever", level.Level)
		}
	}
	var days struct {
		Unforced, LastError string
		Days                []struct {
			Day                   string
			RunBytes, BundleBytes uint64
			SealedSamples         uint64
			Unsealed              bool
		}
	}
	v.get("/api/v1/status/compactor", &days)
	require.Empty(v.t, days.Unforced)
	require.Empty(v.t, days.LastError)
	for _, day := range days.Days {
		if day.Day < cut.Format(dayFormat) {
			require.Zero(v.t, day.RunBytes+day.BundleBytes+day.SealedSamples, "%+v has no samples any more", day)
		}
	}
	return cut
}

// refuseOld holds that a sample which is past its age is refused for itself, for
// this reason, and counted.
func (v *archived) refuseOld(m *month) {
	v.t.Helper()
	list := []prompb.TimeSeries{
		{Labels: m.series[0].labels, Samples: []prompb.Sample{{Timestamp: m.begin.Add(50 * time.Hour).UnixMilli(), Value: 1e12}}},
		{Labels: m.series[4].labels, Samples: []prompb.Sample{{Timestamp: m.begin.Add(50*time.Hour).UnixMilli() + 1, Value: 1e15}}},
	}
	before := v.refused()
	status, text := write(v.t, v.server.URL(""), encoded(v.t, list))
	require.Equal(v.t, http.StatusBadRequest, status, text)
	require.Contains(v.t, text, "out_of_retention")
	require.Equal(v.t, before+2, v.refused())
}

// refused is how many samples were refused because of their age.
func (v *archived) refused() int {
	v.t.Helper()
	status, body, err := server.Get(v.t.Context(), v.server.URL("/metrics"))
	require.NoError(v.t, err)
	require.Equal(v.t, http.StatusOK, status)
	n := 0
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "varve_ingest_rejected_total{") && strings.Contains(line, `reason="out_of_retention"`) {
			var one float64
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &one)
			require.NoError(v.t, err)
			n += int(one)
		}
	}
	return n
}

// samples holds that with the resolution raw there is nothing before the cut and
// everything after it, by the number of samples of each day.
func (c *monthComparison) samples(cut time.Time) {
	c.t.Helper()
	const query = `count_over_time(month_requests_total[1d]) or count_over_time(month_temperature_celsius[1d]) or count_over_time(month_native_seconds[1d])`
	for at := cut.AddDate(0, 0, 2-monthDays); !at.After(c.month.today); at = at.AddDate(0, 0, 1) {
		parameters := url.Values{"query": {query}, "time": {stamp(at)}, "resolution": {"raw"}}
		got := ask(c.t, c.base, "/api/v1/query", parameters, false)
		require.Equal(c.t, http.StatusOK, got.status, "%+v", got)
		require.Equal(c.t, "raw", got.header.Get(resolutionHeader))
		if !at.After(cut) {
			require.Empty(c.t, got.series, "samples of the day before %s have expired", at)
			continue
		}
		want := ask(c.t, c.reference, "/api/v1/query", parameters, false)
		require.NotEmpty(c.t, want.series)
		require.Empty(c.t, difference(want, got, values), "samples of the day before %s", at)
	}
}

// catalogue holds that series are listed by the days that have something of them,
// samples or buckets.
func (c *monthComparison) catalogue() {
	c.t.Helper()
	first := c.month.begin.Truncate(24 * time.Hour)
	for _, span := range [][2]int{{0, monthDays}, {3, 3}, {9, 10}, {17, 17}, {21, 28}, {monthDays - 3, monthDays}} {
		parameters := url.Values{
			"match[]": {`{job="month"}`},
			"start":   {stamp(first.AddDate(0, 0, span[0]))}, "end": {stamp(first.AddDate(0, 0, span[1]+1).Add(-time.Millisecond))},
		}
		want, failure := list(c.t, c.reference+"/api/v1/series?"+parameters.Encode())
		require.Empty(c.t, failure)
		require.NotEmpty(c.t, want)
		got, failure := list(c.t, c.base+"/api/v1/series?"+parameters.Encode())
		require.Empty(c.t, failure)
		require.Equal(c.t, want, got, "series of the days %v", span)
	}
}
