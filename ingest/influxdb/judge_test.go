package influxdb_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/internal/gate/peers"
)

// judged is a body that InfluxDB 1.6 and Varve get alike.
type judged struct {
	body  string
	query string // beside db
	// differs says why the answers may differ; code and text are Varve's then.
	differs string
	code    int
	text    string
	// keeps says that Varve stores more, a line each.
	keeps []string
}

// Why answers differ from InfluxDB's on purpose.
const (
	typeFree     = "a field may change its type: all numbers are float64"
	noUnsigned   = "unsigned integers are off in InfluxDB 1.x, and on in clients"
	lenientEnds  = "lines of Windows end in CR LF"
	newlineEnds  = "a backslash before a newline must not take the next line along"
	quotesEnd    = "a quote that is never closed must not take the lines behind it along"
	reservedName = "time is a name like others"
	precisionBad = "a precision that nobody knows would store wrong times"
	anyPolicy    = "no retention policy has to exist"
	notUTF8      = "labels are UTF-8"
	keyLength    = "lengths are limited by label, and a metric's name is one"
	unreadable   = "InfluxDB stores it, and finds it no more"
	printed      = "control characters are escaped in errors"
)

var judgedBodies = []judged{
	{body: "a b=1 5000000"}, {body: "a"}, {body: "a "}, {body: ",x=1 b=1"}, {body: "a,b c=1"}, {body: "a,b= c=1"}, {body: "a,=b c=1"},
	{body: "a,b=c=d c=1"}, {body: "a,b=c,b=d c=1"}, {body: "a,b=c,d=e,b=d c=1"}, {body: "a b="}, {body: "a =1"}, {body: "a b=1,"}, {body: "a b=1,c"},
	{body: "a b=1,=2"}, {body: "a b"}, {body: "a b=x"}, {body: "a b=nan"}, {body: "a b=NaN"}, {body: "a b=inf"}, {body: "a b=+Inf"},
	{body: "a b=-Inf"}, {body: "a b=+1"}, {body: "a b=1i 6000000"}, {body: "a b=-1i 6000000"}, {body: "a b=9223372036854775808i"},
	{body: "a b=9223372036854775807i 1000000"}, {body: "a b=-9223372036854775808i 1000000"}, {body: "a b=9007199254740993i 1000000"},
	{body: "a b=-9223372036854775809i 1000000"}, {body: "a b=1.5i"}, {body: "a b=1e5i"}, {body: "a b=1e400"}, {body: "a b=1e"}, {body: "a b=."},
	{body: "a b=-"}, {body: "a b=-."}, {body: "a b=-.5 1000000"}, {body: "a b=1. 1000000"}, {body: "a b=.5 1000000"}, {body: "a b=1.2.3"}, {body: "a b=0x10"}, {body: "a b=1_0"},
	{body: "a b=tru"}, {body: "a b=tRUE"}, {body: "a b=1 x"}, {body: "a b=1 1.5"}, {body: "a b=1 -"}, {body: "a b=1 99999999999999999999"},
	{body: "a b=1 5 6"}, {body: "a b=1 5000000  "}, {body: "#a b=1"}, {body: "  # a"}, {body: "   "}, {body: "\n\n"}, {body: ""},
	{body: "  a b=1 5000000"}, {body: "a  b=1  5000000"}, {body: "a\tb=1", differs: printed, code: 400, text: `unable to parse 'a\tb=1': missing fields`},
	{body: "a b=1\t5", differs: printed, code: 400, text: `unable to parse 'a b=1\t5': invalid number`}, {body: "a b=1,b=2 5000000"}, {body: `a\,b c=1 5000000`}, {body: `a b\=c=1 5000000`},
	{body: `a,b=c\ d=1 5`}, {body: `a,b\=x=c d=1 5000000`}, {body: "a,b==c d=1 5000000"}, {body: "a b=[1]"}, {body: "a b=1 9223372036854775807"}, {body: "a b=1 -9223372036854775808"},
	{body: "a b=1 9223372036854775806"}, {body: "a b=1 -9223372036854775806"}, {body: "a b=1 -1"}, {body: "a b=1 -1000001"}, {body: "a b=1 0"},
	{body: "a,b=c, d=1"}, {body: "a,b=c,d d=1"}, {body: "a, b=1"}, {body: "a,b=c"}, {body: "a,b"}, {body: "a,"}, {body: "a,b="}, {body: "a,b=c "}, {body: "a b=1i2"}, {body: "a b=--1"}, {body: "a b=1-"},
	{body: "a b=1 5000000\n junk\na c=2 5000000"}, {body: `a b= 1`}, {body: "a b =1"}, {body: `a "b=1 5000000`}, {body: `a b"x=1 5000000`}, {body: `a "b c"=1 5`},
	{body: `a"x b=1 5000000`}, {body: `a,t="x\ y" b=1 5000000`}, {body: `\a b=1 5000000`}, {body: `a\ b=1`}, {body: `a\\ b=1`}, {body: `a\\,c=d b=1 5000000`, differs: unreadable, code: 204, keeps: []string{`{__name__="a\\,c=d/b"} 5 1`}},
	{body: `a,b=c\\ d=1`}, {body: "_ b=1 5000000"}, {body: "a,b=c\x00 d=1 5000000"}, {body: "\x00a b=1 5000000"},
	{body: "a _=1 5000000"}, {body: "a b=1 0x5"}, {body: "a b=t,c=f,d=T,e=F,g=true,h=false,i=TRUE,j=False,k=FALSE,l=True 3000000"}, {body: "a b=-0 5000000"},
	{body: "a b=1E5,c=1e+5,d=1e-400,e=4.9e-324,f=00001,g=007i,h=0.1,i=123456789012345678901234567890,j=0.1234567890123456789,k=-0i,l=1e22,m=9007199254740993 5000000"},
	{body: "a b=i"}, {body: "a b=-i"}, {body: "a b=1.0e5.5"}, {body: `a b=\"x`}, {body: `a b="a"b="c"`}, {body: "a b=1,,c=2"}, {body: "a b==1"}, {body: "a b=1=2"},
	{body: "a b=1,c="}, {body: `a b=1\ 5`}, {body: `a b\ c=1 5000000`}, {body: `a b="x",c=1 5000000`}, {body: `a b="x y,z= \"q\" \\",c=1 5000000`}, {body: `a b="",c=1 5000000`},
	{body: "a b=\"x\ny=1\n\",c=1 5000000\nd e=1 5000000"}, {body: `a b="x\\",c=1 5000000`}, {body: `a b="x"y,c=1 5000000`}, {body: `a b="say "hi" to",c=1 5000000`}, {body: `a b="x`},
	{body: `é,ö=ü ß=1 5000000`}, {body: "a,b=1,c=2 d=1 5000000\na,c=2,b=1 d=2 6000000"}, {body: "a b=x\nc d=y"}, {body: "a b=x\nc d=1 5000000"}, {body: "a b=1 5000000\n\n\nc d=1 5000000\n"},
	{body: "a value=1 5000000"}, {body: "a value=1,b=2 5000000"}, {body: "a b=1 1500000000", query: "&precision=n"}, {body: "a b=1 1500000", query: "&precision=u"}, {body: "a b=1 1500", query: "&precision=ms"},
	{body: "a b=1 1500", query: "&precision=s"}, {body: "a b=1 1500", query: "&precision=m"}, {body: "a b=1 -1500", query: "&precision=h"}, {body: "a b=1 -1500001", query: "&precision=u"}, {body: "a b=1 9223372036854775807", query: "&precision=ms"},
	{body: "a b=1 5000000", query: "&consistency=any"}, {body: "a b=1", query: "&consistency=most"},
	{body: "a b=1 1500000", query: "&precision=us", differs: "InfluxDB 1.6 takes us for ns, InfluxDB 2 doesn't", code: 204, keeps: []string{`{__name__="a/b"} 1500 1`}},
	{body: "a b=1", query: "&precision=weeks", differs: precisionBad, code: 400, text: `invalid precision "weeks": use ns, us, ms, s, m or h`},
	{body: "a b=1 5000000", query: "&rp=nowhere", differs: anyPolicy, code: 204, keeps: []string{`{__name__="a/b"} 5 1`}},
	{body: "a b=1u 5000000", differs: noUnsigned, code: 204, keeps: []string{`{__name__="a/b"} 5 1`}},
	{body: "a b=18446744073709551615u 5000000", differs: noUnsigned, code: 204, keeps: []string{`{__name__="a/b"} 5 1.8446744073709552e+19`}},
	{body: "a b=18446744073709551616u", differs: noUnsigned, code: 400, text: `unable to parse 'a b=18446744073709551616u': unable to parse unsigned 18446744073709551616: strconv.ParseUint: parsing "18446744073709551616": value out of range`},
	{body: "a b=-1u"}, {body: "a b=1.5u"},
	{body: "a b=1 5000000\na b=1i 6000000", differs: typeFree, code: 204, keeps: []string{`{__name__="a/b"} 6 1`}},
	{body: "a b=1 5000000\r\nc d=2i 6000000\r\n# x\r\n\r\n", differs: lenientEnds, code: 204, keeps: []string{`{__name__="a/b"} 5 1`, `{__name__="c/d"} 6 2`}},
	{body: "a,time=1 b=1 5000000", differs: reservedName, code: 204, keeps: []string{`{__name__="a/b", time="1"} 5 1`}},
	{body: "a time=1 5000000", differs: reservedName, code: 204, keeps: []string{`{__name__="a/time"} 5 1`}},
	{body: "a,b=\xff c=1 5000000", differs: notUTF8, code: 400},
	{body: strings.Repeat("x", 70000) + " b=1", differs: keyLength, code: 400},
	{body: "a,t=x\\\nc d=1 5000000", differs: newlineEnds, code: 400, text: `partial write: unable to parse 'a,t=x\': missing fields dropped=N`, keeps: []string{`{__name__="c/d"} 5 1`}},
	{body: "a b=\"x 5000000\nc d=1 5000000", differs: quotesEnd, code: 400, text: `partial write: unable to parse 'a b="x 5000000': unbalanced quotes dropped=N`, keeps: []string{`{__name__="c/d"} 5 1`}},
	{body: "a b=\"x 5000000\nc d=\"y\",f=1 5000000", differs: quotesEnd, code: 400, text: `partial write: unable to parse 'a b="x 5000000': unbalanced quotes dropped=N`, keeps: []string{`{__name__="c/f"} 5 1`}},
	{body: "a b=\"x\ny\"", differs: "text alone is left out, which is no fault"},
}

var droppedCount = regexp.MustCompile(`dropped=\d+$`)

// TestInfluxdJudges sends bodies to InfluxDB 1.6 and to Varve: status and error are the
// same and so are the points that can be read, but for the differences that have a reason.
func TestInfluxdJudges(t *testing.T) {
	influx := peers.StartInfluxDB(t, peers.InfluxDB16(t))
	for i, c := range judgedBodies {
		name := fmt.Sprintf("d%d", i)
		influx.Query(t, name, "CREATE DATABASE "+name)
		sink := ingesttest.NewSink()
		// Nothing is renamed, so that names can be compared.
		h := newInput(sink, influxdb.Options{Characters: influxdb.UTF8, Separator: "/", AppendValue: true, BareMeasurements: []string{}}).Write()
		target := "/write?db=" + name + c.query
		w := send(h, target, c.body)
		text := droppedCount.ReplaceAllString(errorOf(t, w.Body.Bytes()), "dropped=N")
		got := samples(sink)

		resp, err := http.Post(influx.URL(target), "", strings.NewReader(c.body))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		wantText := droppedCount.ReplaceAllString(errorOf(t, body), "dropped=N")
		if c.differs != "" && c.code != 0 {
			require.Equal(t, c.code, w.Code, "%q: %s", c.body, text)
			if c.text != "" {
				require.Equal(t, c.text, text, "%q", c.body)
			}
			for _, line := range c.keeps {
				require.Contains(t, got, line, "%q", c.body)
			}
			require.NotEqual(t, fmt.Sprint(resp.StatusCode, wantText, stored(t, influx, name)), fmt.Sprint(w.Code, text, got), "%q differs no longer", c.body)
			continue
		}
		require.Equal(t, resp.StatusCode, w.Code, "%q: %s, want %s", c.body, text, wantText)
		require.Equal(t, wantText, text, "%q", c.body)
		require.Equal(t, resp.Header.Get("X-Influxdb-Error") != "", w.Header().Get("X-Influxdb-Error") != "", "%q", c.body)
		require.Equal(t, stored(t, influx, name), got, "%q", c.body)
	}
}

// places are not compared: InfluxDB counts the end of a query twice.
var places = regexp.MustCompile(` at line 1, char \d+`)

// TestInfluxdJudgesRequests compares what clients ask beside writes.
func TestInfluxdJudgesRequests(t *testing.T) {
	influx := peers.StartInfluxDB(t, peers.InfluxDB16(t))
	in := newInput(ingesttest.NewSink(), influxdb.Options{})
	mux := http.NewServeMux()
	mux.Handle("/write", in.Write())
	mux.Handle("/ping", in.Ping())
	mux.Handle("/query", in.Query())
	for _, c := range []struct {
		method, target, form string
		differs              string
	}{
		{method: "GET", target: "/ping"},
		{method: "HEAD", target: "/ping"},
		{method: "POST", target: "/ping", differs: "the body is JSON"},
		{method: "GET", target: "/write", differs: "the body is JSON"},
		{method: "GET", target: "/query"},
		{method: "POST", target: "/query", form: "q="},
		{method: "GET", target: "/query?q=SHOW+DATABASES"},
		{method: "POST", target: "/query", form: "q=CREATE+DATABASE+%22telegraf%22"},
		{method: "POST", target: "/query", form: "q=CREATE+DATABASE+%22x%5C%22y%22"},
		{method: "POST", target: "/query?q=CREATE+DATABASE+telegraf"},
		{method: "POST", target: "/query", form: "q=create+database+a+with+duration+1d+replication+1+name+%22p%22"},
		{method: "POST", target: "/query", form: "q=show+databases%3B"},
		{method: "POST", target: "/query", form: "q=CREATE+DATABASE+b%3B+SHOW+DATABASES"},
		{method: "POST", target: "/query", form: "q=CREATE+DATABASE"},
		{method: "POST", target: "/query", form: "q=CREATE+DATABASE+a+b"},
		{method: "POST", target: "/query", form: "q=SHOW+RETENTION+POLICIES"},
		{method: "POST", target: "/query", form: "q=SHOW+RETENTION+POLICIES+ON+telegraf"},
		{method: "POST", target: "/query?db=telegraf", form: "q=SHOW+RETENTION+POLICIES"},
		{method: "POST", target: "/query", form: "q=CREATE+RETENTION+POLICY+r+ON+b+DURATION+1d+REPLICATION+1"},
		{method: "POST", target: "/query", form: "q=SELECT+1", differs: "the data is read with PromQL"},
		{method: "POST", target: "/query", form: "q=FOO", differs: "other words are expected"},
	} {
		want, wantBody := request(t, c.method, influx.URL(c.target), c.form)
		local := httptestServer(t, mux)
		got, gotBody := request(t, c.method, local+c.target, c.form)
		require.Equal(t, want.StatusCode, got.StatusCode, c)
		if c.differs == "" {
			require.Equal(t, places.ReplaceAllString(string(wantBody), ""), places.ReplaceAllString(string(gotBody), ""), c)
		}
		for _, name := range []string{"X-Influxdb-Version", "X-Influxdb-Build", "Allow"} {
			require.Equal(t, want.Header.Get(name) == "", got.Header.Get(name) == "", "%v %s", c, name)
		}
		if want.StatusCode != http.StatusMethodNotAllowed {
			require.NotEmpty(t, got.Header.Get("Request-Id"))
			require.Equal(t, want.Header.Get("Content-Type"), orJSON(got.Header.Get("Content-Type")), c)
		}
	}
}

func orJSON(contentType string) string {
	if contentType == "" {
		return "application/json" // InfluxDB names it for bodies that are empty too
	}
	return contentType
}

func request(t testing.TB, method, target, form string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form))
	require.NoError(t, err)
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, body
}

// stored is what samples has to be after the writes to an InfluxDB.
func stored(t testing.TB, s *peers.InfluxDB, database string) []string {
	t.Helper()
	var out []string
	for _, series := range s.Query(t, database, `SELECT * FROM /.*/ GROUP BY *`) {
		for _, row := range series.Values {
			nanos, err := row[0].(json.Number).Int64()
			require.NoError(t, err)
			for i, v := range row[1:] {
				value, ok := numberOf(t, v)
				if !ok {
					continue
				}
				set := map[string]string{model.MetricNameLabel: series.Name + "/" + series.Columns[i+1]}
				for k, v := range series.Tags {
					if v != "" {
						set[k] = v
					}
				}
				millis := nanos / 1_000_000
				if nanos%1_000_000 < 0 {
					millis--
				}
				out = append(out, fmt.Sprintf("%s %d %v", labels.FromMap(set), millis, value))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func numberOf(t testing.TB, v any) (float64, bool) {
	t.Helper()
	switch v := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(v.String(), 64)
		require.NoError(t, err)
		return f, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}
