package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/chart"
)

// Shows that the same figures give the same well-formed picture, with all names, and
// others another one.
func TestSVG(t *testing.T) {
	b := chart.Bars{Title: "Bytes", Unit: "B/sample", Places: []string{"day", "hour"}, Servers: []chart.Server{
		{Name: "varve", Figures: []float64{0.5, math.NaN()}}, {Name: "a<b", Figures: []float64{1, 2}},
	}}
	first, err := b.SVG()
	require.NoError(t, err)
	again, err := b.SVG()
	require.NoError(t, err)
	require.Equal(t, string(first), string(again))
	for _, text := range []string{"Bytes", "B/sample", "day", "hour", "varve"} {
		require.Contains(t, string(first), text)
	}
	decoder := xml.NewDecoder(strings.NewReader(string(first)))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	b.Servers[0].Figures[0] = 0.6
	other, err := b.SVG()
	require.NoError(t, err)
	require.NotEqual(t, string(first), string(other))
}

// Shows that a chart without figures, or with too few, is refused.
func TestRefuses(t *testing.T) {
	_, err := chart.Bars{Title: "x"}.SVG()
	require.ErrorContains(t, err, "nothing")
	_, err = chart.Bars{Title: "x", Places: []string{"a", "b"}, Servers: []chart.Server{{Name: "s", Figures: []float64{1}}}}.SVG()
	require.ErrorContains(t, err, "1 figures for 2 places")
}
