package canary

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
)

// The patterns' values of one time as texts, for the test that pins them.
func Values(atMillis int64) (out []string) {
	for i := range patterns {
		p, text := &patterns[i], "the round before"
		switch {
		case p.float != nil:
			text = bitsText(p.float(atMillis))
		case p.ints != nil:
			text = intText(p.ints(atMillis))
		case p.floats != nil:
			text = floatText(p.floats(atMillis))
		}
		out = append(out, fmt.Sprintf("%s: %s", p.name, text))
	}
	return out
}

// Histograms are those of one time.
func Histograms(atMillis int64) (*histogram.Histogram, *histogram.FloatHistogram) {
	return intHistogram(atMillis), floatHistogram(atMillis)
}

// Awkward is the number of awkward values.
var Awkward = len(awkwardBits)

// Look reads the time later than from, up to and including to.
func (c *Canary) Look(ctx context.Context, age string, fromMillis, toMillis int64) bool {
	return c.look(ctx, age, fromMillis, toMillis)
}
