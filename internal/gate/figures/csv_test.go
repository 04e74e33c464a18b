package figures_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// queries are those whose answers are the same, to the bit, from every engine.
var queries = []string{"wave", "gappy", "odd", "hostile", "requests_total", "max(wave)", "wave @ end()", "max_over_time(requests_total[1m]) % 11 > 3", "count by (__name__) ({__name__=~\".+\"})"}

func queryArgs(queries []string, more ...string) (args []string) {
	for _, q := range queries {
		args = append(args, "--query", q)
	}
	return append(args, more...)
}

// TestCSV exports the same queries from Prometheus, with and without a slash at the end of the URL, from Varve below a prefix, and from its data
// directory when it is stopped. All are the same bytes, in both forms of CSV and with points enough that the range has to be asked for in
// parts. Go's reader gets out of it what each server's API says.
func TestCSV(t *testing.T) {
	prometheus := startPrometheus(t)
	dir := t.TempDir()
	varve, base := startVarve(t, dir)
	type form struct {
		args []string
		step time.Duration
	}
	forms := []form{
		{[]string{"--step", "15s"}, interval}, {[]string{"--step", "15s", "--long", "--separator", ";", "--time", "unix"}, interval},
		{[]string{"--step", "15s", "--max-points", "100", "--time", "unix_ms"}, interval}, {[]string{"--step", "1s", "--long"}, time.Second},
	}
	var want []string
	for i, f := range forms {
		args := queryArgs(queries, f.args...)
		one := good(t, append(args, "--url", prometheus.URL(""))...)
		require.Equal(t, one.out, good(t, append(args, "--url", prometheus.URL("/"))...).out)
		for _, u := range []string{base, base + "/"} {
			same(t, one.out, good(t, append(args, "--url", u)...).out, fmt.Sprint("Varve, ", f.args))
		}
		want = append(want, one.out)
		if i == 0 {
			compareWide(t, one.out, prometheus.URL(""), f.step)
			compareWide(t, one.out, base, f.step)
		}
		t.Logf("%v: %d bytes, %s", f.args, len(one.out), one.errs)
	}
	stop(t, varve)
	for i, f := range forms {
		same(t, want[i], good(t, append(queryArgs(queries, f.args...), dir)...).out, fmt.Sprint("the data directory, ", f.args))
	}
}

func same(t *testing.T, want, got, what string) {
	t.Helper()
	if want == got {
		return
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	t.Fatalf("%s differs at byte %d of %d and %d:\n%q\n%q", what, at, len(want), len(got), want[max(0, at-100):min(len(want), at+100)], got[max(0, at-100):min(len(got), at+100)])
}

// compareWide reads a wide CSV and compares it with the API, value by value.
func compareWide(t *testing.T, text, base string, step time.Duration) {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	require.NoError(t, err)
	rows := map[string][]string{}
	for _, r := range records[1:] {
		rows[r[0]] = r[1:]
	}
	column, values := 0, 0
	for _, q := range queries {
		series, _ := ask(t, base, q, begin, end(), step)
		// Columns are sorted by query and labels, as the API's series are.
		for _, s := range series {
			require.True(t, strings.HasPrefix(records[0][column+1], q+" "), records[0][column+1])
			for _, v := range s.Values {
				seconds, err := strconv.ParseFloat(string(v[0]), 64)
				require.NoError(t, err)
				var want string
				require.NoError(t, json.Unmarshal(v[1], &want))
				at := time.UnixMilli(int64(seconds * 1000)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
				require.Equal(t, want, rows[at][column], "%s at %s", q, at)
				rows[at][column] = ""
				values++
			}
			column++
		}
	}
	require.Len(t, records[0], column+1)
	require.Greater(t, values, 30*samples)
	for at, r := range rows {
		require.Empty(t, strings.Join(r, ""), "values at %s that the API hasn't", at)
	}
}

// python is Debian's, which has what Debian packages for it.
func python(t *testing.T, module, debian string) string {
	t.Helper()
	const path = "/usr/bin/python3"
	if err := exec.Command(path, "-c", "import "+module).Run(); err != nil {
		server.Lacking(t, "no %s for %s: apt-get install %s", module, path, debian)
	}
	return path
}

// comparison reads the long form with Python's csv and the answer of the API, and compares them value by value.
const comparison = `
import csv, json, struct
want = {}
for s in json.load(open('api.json'))['data']['result']:
    for at, v in s['values']:
        want[(json.dumps(s['metric'], sort_keys=True), float(at))] = v
n = 0
with open('long.csv', newline='', encoding='utf-8') as f:
    rows = csv.reader(f)
    assert next(rows) == ['time', 'metric', 'value']
    for at, metric, v in rows:
        expected = want.pop((json.dumps(json.loads(metric), sort_keys=True), float(at)))
        assert struct.pack('d', float(v)) == struct.pack('d', float(expected)), (v, expected)
        n += 1
assert not want, want
print(n)
`

// TestPythonReadsCSV shows that Python's csv and json get the same values out of the export as out of the API, from Prometheus, Varve and VictoriaMetrics.
func TestPythonReadsCSV(t *testing.T) {
	path := python(t, "csv", "python3")
	_, varve := startVarve(t, t.TempDir())
	for name, base := range map[string]string{"Prometheus": startPrometheus(t).URL(""), "Varve": varve, "VictoriaMetrics": startVictoria(t).URL("")} {
		_, body := ask(t, base, `{__name__=~"wave|hostile|gappy|odd"}`, begin, end(), interval)
		e := good(t, "--query", `{__name__=~"wave|hostile|gappy|odd"}`, "--step", "15s", "--long", "--time", "unix", "--url", base+"/")
		r := runIn(t, map[string]string{"api.json": string(body), "long.csv": e.out, "compare.py": comparison}, nil, nil, path, "compare.py")
		n, err := strconv.Atoi(strings.TrimSpace(r.out))
		require.NoError(t, err)
		require.Greater(t, n, len(hostile)*samples)
		t.Logf("%s: %d values", name, n)
	}
}

// TestVictoriaInParts shows that VictoriaMetrics, which has another language and moves times unless it is told not to, gives the same in parts,
// and that a query of which that isn't known is not taken apart.
func TestVictoriaInParts(t *testing.T) {
	v := startVictoria(t)
	args := []string{"--query", "wave", "--query", "max(hostile)", "--step", "7s", "--url", v.URL("/"), "--start", begin.Add(13 * time.Second).Format(time.RFC3339), "--end", end().Format(time.RFC3339)}
	run := func(more ...string) exported {
		e := exportAs(t, append(append([]string{"export", "query"}, args...), more...)...)
		require.Zero(t, e.code, e.errs)
		return e
	}
	same(t, run().out, run("--max-points", "150").out, "in parts")
	good(t, "--query", "range_avg(wave)", "--step", "15s", "--url", v.URL(""))
	e := export(t, "--query", "range_avg(wave)", "--step", "15s", "--max-points", "100", "--url", v.URL(""))
	require.Equal(t, 1, e.code)
	require.Contains(t, e.errs, "can't be taken apart")
}

// TestNothing shows that a result without a value, an error of the server and a server that isn't there end with 1, a message and no output.
func TestNothing(t *testing.T) {
	s := startPrometheus(t)
	for query, says := range map[string]string{"nonesuch": "the result is empty", "wave{": "bad_data: 1:6: parse error", `wave + on() group_left() wave`: "execution: "} {
		e := export(t, "--query", query, "--url", s.URL(""))
		require.Equal(t, 1, e.code)
		require.Empty(t, e.out)
		require.Contains(t, e.errs, says)
	}
	s.Kill()
	e := exportAs(t, "export", "query", "--query", "wave", "--url", s.URL(""), "--timeout", "1m", "--start", "2024-01-01", "--end", "2024-01-01")
	require.Equal(t, 1, e.code)
	require.Contains(t, e.errs, "connection refused")
}

// TestMemory shows that what an export holds doesn't grow with the range: ten days of seconds of six series, five million values, over a server. Wide CSV keeps
// them in a file meanwhile.
func TestMemory(t *testing.T) {
	s := startPrometheus(t)
	args := []string{"export", "query", "--query", `label_replace(vector(time()), "n", "1", "", "")`, "--query", "time()", "--query", "vector(time()) % 7", "--query", "hour()", "--query", "day_of_week()", "--query", "minute()",
		"--start", "2024-01-01", "--end", "2024-01-11", "--step", "1s", "--url", s.URL(""), "--quiet", "--output", t.TempDir() + "/out.csv.zst"}
	for _, long := range []bool{true, false} {
		more := args
		if long {
			more = append(more, "--long")
		}
		began := time.Now()
		e := exportAs(t, more...)
		require.Zero(t, e.code, e.errs)
		require.Contains(t, e.errs, "6 series, 5184006 values")
		require.Positive(t, e.rssBytes)
		require.Less(t, e.rssBytes, int64(250<<20))
		t.Logf("long %t: %d MiB resident at most, %s: %s", long, e.rssBytes>>20, time.Since(began).Round(time.Millisecond), e.errs)
	}
}
