package archive_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// long tells whether VARVE_LONG=1 asks for all that tests can do.
func long() bool { return os.Getenv("VARVE_LONG") != "" }

// seeds are those of n runs of a test at random: the same ones whenever CI runs, so that what fails there fails because of a change, and others
// each time with VARVE_LONG=1. A test prints its seed; the environment variable repeats a single one.
func seeds(t testing.TB, variable string, n int) (out []uint64) {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, variable)
		return []uint64{seed}
	}
	first := uint64(1)
	if long() {
		first = uint64(time.Now().UnixNano())
	}
	for i := range n {
		out = append(out, first+uint64(i))
	}
	return out
}

// draws is how often a test at random, or with sizes that show no more when they are larger, does its work: less in a CI
// run, which is bounded and repeated with every commit.
func draws(short, all int) int {
	if long() {
		return all
	}
	return short
}
