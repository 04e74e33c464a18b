package scrape_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/stretchr/testify/require"

	"varve/ingest/scrape"
)

const openMetrics = "application/openmetrics-text; version=1.0.0"

// TestRepair shows what is left of expositions.
func TestRepair(t *testing.T) {
	f := func(contentType, text, want string, leftOut ...string) {
		t.Helper()
		for _, src := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
			got, lines, ok := scrape.Repair(src, contentType)
			require.True(t, ok)
			require.Equal(t, want, string(got))
			require.Equal(t, leftOut, lines)
		}
	}
	const good = "# HELP a What.\n# TYPE a counter\na{x=\"y\"} 1\n\na{x=\"z\"} 2 1700000000000\n"
	f(plainText, good, good)
	f(plainText, "", "")
	f(plainText, "a 1", "a 1\n")
	f(plainText, "a 1\r\nb 2\r\n", "a 1\nb 2\n")
	f(plainText, "a None\nb 2\n", "b 2\n", "a None")
	f(plainText, "a{x=\"1} 1\nb 2\nc{x=\"} 3\n", "b 2\n", `a{x="1} 1`, `c{x="} 3`)
	f(plainText, "{a=\"b\"} 1\n{\"c\",a=\"b\"} 1\n", "{\"c\",a=\"b\"} 1\n", `{a="b"} 1`)
	f(plainText, "a 1\n# EOF\nb 1\n", "a 1\n# EOF\nb 1\n")

	f(openMetrics, "a 1\n# EOF\n", "a 1\n# EOF\n")
	f(openMetrics, "a 1\n", "a 1\n# EOF\n")
	f(openMetrics, "a 1", "a 1\n# EOF\n")
	f(openMetrics, "", "# EOF\n")
	f(openMetrics, "a 1\n\nb None\n# EOF\nc 1\n", "a 1\n# EOF\n", "b None", "c 1")
	f(openMetrics, "# TYPE a counter\na_total 1 # {trace_id=\"x\"} 0.5\na_total{x=\"1\"} 1 # {trace_id} 1\n# EOF\n",
		"# TYPE a counter\na_total 1 # {trace_id=\"x\"} 0.5\n# EOF\n", `a_total{x="1"} 1 # {trace_id} 1`)
	_, _, ok := scrape.Repair(nil, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	require.False(t, ok)
	_, _, ok = scrape.Repair(nil, "")
	require.False(t, ok)
}

// parse reads an exposition as the scrape loop does and returns its samples.
func parse(text []byte, contentType string) (samples []string, err error) {
	p, err := textparse.New(text, contentType, nil, textparse.ParserOptions{})
	if p == nil {
		return nil, err
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return samples, nil
		}
		if err != nil {
			return nil, err
		}
		if entry == textparse.EntrySeries {
			var ls labels.Labels
			p.Labels(&ls)
			if ls.Get("__name__") == "" {
				return nil, errors.New("no name")
			}
			samples = append(samples, ls.String())
		}
	}
}

// FuzzRepair shows that upstream reads what is left of any text, that a text that it
// reads line by line loses nothing, and that repairing twice is repairing once.
func FuzzRepair(f *testing.F) {
	f.Add([]byte(aggregatorText), false)
	f.Add([]byte("a{x=\"1} 1\nb 2\nc{x=\"} 3\n"), false)
	f.Add([]byte("# TYPE a counter\na_total 1 # {trace_id=\"x\"} 0.5\n\n# EOF\nb 1"), true)
	f.Fuzz(func(t *testing.T, text []byte, open bool) {
		contentType := plainText
		if open {
			contentType = openMetrics
		}
		repaired, leftOut, ok := scrape.Repair(bytes.NewReader(text), contentType)
		require.True(t, ok)
		samples, err := parse(repaired, contentType)
		require.NoError(t, err, "%q", repaired)
		again, more, _ := scrape.Repair(bytes.NewReader(repaired), contentType)
		require.Equal(t, repaired, again)
		require.Empty(t, more)
		if original, err := parse(append([]byte(nil), text...), contentType); err == nil && len(leftOut) == 0 {
			require.Equal(t, original, samples)
		}
	})
}
