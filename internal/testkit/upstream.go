package testkit

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/teststorage"
)

// Upstream opens Prometheus' own database in a folder of the test, with room for what a test writes: one for a million series
// and their exemplars, which upstream's scripts open by the hundred, costs the race detector more than all that is done with it.
func Upstream(t testing.TB, change ...teststorage.Option) *teststorage.TestStorage {
	t.Helper()
	small := func(o *tsdb.Options) { o.StripeSize, o.MaxExemplars = 64, 1000 }
	return teststorage.New(t, append([]teststorage.Option{small}, change...)...)
}

// StartTimestamps is the option of Upstream that keeps the time at which each counter began, as upstream's scripts need it.
func StartTimestamps(o *tsdb.Options) {
	o.EnableSTStorage, o.FloatChunkEncoding, o.EnableHistogramSTEncoding = true, chunkenc.EncXOR2, true
}
