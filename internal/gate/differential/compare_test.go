package differential_test

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:embed testdata/queries.txt
var queriesText []byte

// question is a query and what is known of the engines' differences about it.
type question struct {
	text string
	// differs and close are reasons why 2.42 answers otherwise, or in other digits,
	// order why any other server may answer in other digits.
	differs, close, order string
}

// questions reads testdata/queries.txt.
func questions(t *testing.T) []question {
	t.Helper()
	var out []question
	var current question
	lines := bufio.NewScanner(bytes.NewReader(queriesText))
	for lines.Scan() {
		line := lines.Text()
		reason, differs := strings.CutPrefix(line, "differs: ")
		digits, near := strings.CutPrefix(line, "close: ")
		unordered, anyOrder := strings.CutPrefix(line, "order: ")
		switch {
		case line == "":
			current = question{}
		case strings.HasPrefix(line, "#"):
		case differs:
			current.differs = reason
		case near:
			current.close = digits
		case anyOrder:
			current.order = unordered
		default:
			current.text = line
			out = append(out, current)
		}
	}
	require.NoError(t, lines.Err())
	require.GreaterOrEqual(t, len(out), 200)
	return out
}

// answer is what a server said, in a form that can be compared.
type answer struct {
	status    int
	header    http.Header
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Infos     []string `json:"infos"`
	Data      struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`

	series []series
}

// series is one element of a result, with its JSON but for the labels.
type series struct {
	labels string
	points string
}

// ask sends a query and brings the answer into its form. Ordered keeps the order
// of series, which otherwise nobody promises.
func ask(t *testing.T, base, path string, parameters url.Values, ordered bool) answer {
	t.Helper()
	resp, err := http.PostForm(base+path, parameters)
	require.NoError(t, err)
	var a answer
	err = json.NewDecoder(resp.Body).Decode(&a)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, err, "%s%s?%s", base, path, parameters.Encode())
	a.status, a.header = resp.StatusCode, resp.Header
	slices.Sort(a.Warnings)
	slices.Sort(a.Infos)
	if a.Data.ResultType == "vector" || a.Data.ResultType == "matrix" {
		var elements []map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(a.Data.Result, &elements))
		for _, e := range elements {
			var lset map[string]string
			require.NoError(t, json.Unmarshal(e["metric"], &lset))
			delete(e, "metric")
			a.series = append(a.series, series{labels: text(t, lset), points: text(t, e)})
		}
		if !ordered {
			slices.SortFunc(a.series, func(x, y series) int { return strings.Compare(x.labels, y.labels) })
		}
	} else if a.Data.Result != nil {
		a.series = []series{{points: string(a.Data.Result)}}
	}
	return a
}

// text is JSON with the keys of objects in order.
func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// strictness is how alike two answers have to be.
type strictness int

const (
	// toTheLetter includes errors and annotations.
	toTheLetter strictness = iota
	// values leaves out texts for people, which change between versions.
	values
	// digits lets numbers differ in what different ways of summing make of them.
	digits
)

// difference describes the first difference between two answers, "" if there is
// none.
func difference(want, got answer, how strictness) string {
	if want.status != got.status || want.Status != got.Status || want.ErrorType != got.ErrorType {
		return fmt.Sprintf("reference %d %s %s %q, varve %d %s %s %q", want.status, want.Status, want.ErrorType, want.Error,
			got.status, got.Status, got.ErrorType, got.Error)
	}
	if how == toTheLetter {
		for _, c := range []struct{ what, want, got string }{
			{"error", want.Error, got.Error},
			{"warnings", strings.Join(want.Warnings, "\n"), strings.Join(got.Warnings, "\n")},
			{"infos", strings.Join(want.Infos, "\n"), strings.Join(got.Infos, "\n")},
		} {
			if c.want != c.got {
				return fmt.Sprintf("%s: reference %q, varve %q", c.what, c.want, c.got)
			}
		}
	}
	if want.Data.ResultType != got.Data.ResultType {
		return fmt.Sprintf("type: reference %q, varve %q", want.Data.ResultType, got.Data.ResultType)
	}
	for i := range max(len(want.series), len(got.series)) {
		switch {
		case i >= len(want.series) || i < len(got.series) && got.series[i].labels < want.series[i].labels:
			return fmt.Sprintf("varve alone has %s %s", got.series[i].labels, short(got.series[i].points))
		case i >= len(got.series) || got.series[i].labels != want.series[i].labels:
			return fmt.Sprintf("the reference alone has %s %s", want.series[i].labels, short(want.series[i].points))
		case got.series[i].points == want.series[i].points:
		case how == digits && near(want.series[i].points, got.series[i].points):
		default:
			return fmt.Sprintf("%s: %s", want.series[i].labels, firstDifference(want.series[i].points, got.series[i].points))
		}
	}
	return ""
}

func short(s string) string { return s[:min(len(s), 200)] }

// firstDifference shows both texts around the first byte in which they differ.
func firstDifference(want, got string) string {
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	from := max(0, at-60)
	return fmt.Sprintf("reference …%s, varve …%s", short(want[from:]), short(got[from:]))
}

// relativeErrorMax is far above what the order of additions changes, and far below
// what a lost sample does.
const relativeErrorMax = 1e-9

// near says whether two texts are the same but for numbers in quotes that differ
// hardly.
func near(want, got string) bool {
	a, b := strings.Split(want, `"`), strings.Split(got, `"`)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		x, err := strconv.ParseFloat(a[i], 64)
		y, err2 := strconv.ParseFloat(b[i], 64)
		// Differences of nearly equal numbers are zero, more or less.
		if err != nil || err2 != nil || math.Abs(x-y) > relativeErrorMax*max(math.Abs(x), math.Abs(y), 1e-3) {
			return false
		}
	}
	return true
}
