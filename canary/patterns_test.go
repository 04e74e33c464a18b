package canary_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/canary"
)

// TestPatternsArePinned shows that the values of a time are those of every release before: samples that were written
// years ago are compared with them.
func TestPatternsArePinned(t *testing.T) {
	require.Equal(t, []string{
		"awkward: 0x3fb999999999999a",
	}, canary.Values(1_700_000_000_000)[:1])
	sum := sha256.New()
	for at := int64(1_700_000_000_000); at < 1_700_000_000_000+2000*15_000; at += 15_000 {
		sum.Write([]byte(strings.Join(canary.Values(at), "\n")))
	}
	require.Equal(t, "2219241d76e421adcdbf76e5e9544f885318c53d735a25a5a4541295cfcdbddd", hex.EncodeToString(sum.Sum(nil)))
}

// TestHistogramsAreValid shows that the histograms of a long time are such as inputs take, of all schemas, and that every awkward
// value comes.
func TestHistogramsAreValid(t *testing.T) {
	schemas, awkward := map[int32]int{}, map[string]bool{}
	for i := int64(0); i < 5000; i++ {
		at := 1_700_000_000_000 + i*60_000
		h, fh := canary.Histograms(at)
		require.NoError(t, h.Validate(), "%d", at)
		require.NoError(t, fh.Validate(), "%d", at)
		require.False(t, math.IsNaN(h.Sum))
		schemas[h.Schema]++
		schemas[fh.Schema]++
		awkward[canary.Values(at)[0]] = true
	}
	require.Len(t, schemas, 14, "-4 to 8, and custom buckets")
	require.Len(t, awkward, canary.Awkward)
}
