package text

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

// checkFloat compares parseFloat with strconv.
func checkFloat(t *testing.T, s string) {
	t.Helper()
	bits, ok := parseFloat([]byte(s))
	want, err := strconv.ParseFloat(s, 64)
	if strings.ContainsAny(s, "pP_") || err != nil {
		require.False(t, ok, s)
		return
	}
	require.True(t, ok, s)
	if math.IsNaN(want) {
		require.Equal(t, value.NormalNaN, bits)
		return
	}
	require.Equal(t, math.Float64bits(want), bits, s)
}

// TestParseFloat compares with strconv, bit for bit, what is near the edges of the short way and much at random.
func TestParseFloat(t *testing.T) {
	for _, s := range []string{
		"", "-", "+", ".", "-.", "0", "-0", "+1", "1.", ".5", "-.5", "00012", "9007199254740991", "9007199254740992", "9007199254740993", "0.1", "1e3", "1e400", "1e-400",
		"Inf", "-inf", "+Inf", "infinity", "NaN", "nan", "0x10", "1_0", "0x1p-2", "1.2.3", "1 ", "0.0000000000000000000001", "0.00000000000000000000001",
		"123456789012345678901234567890", "0.30000000000000004", "179769313486231570000000000000", "4.9e-324", "9.007199254740991", "90071992547409.93",
	} {
		checkFloat(t, s)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 200_000 {
		v := math.Float64frombits(r.Uint64())
		if r.IntN(2) == 0 {
			v = float64(r.Int64N(1<<54)) / math.Pow10(r.IntN(25))
		}
		checkFloat(t, strconv.FormatFloat(v, "fge"[r.IntN(3)], r.IntN(25)-1, 64))
	}
}

// TestParseSeconds shows that times are cut to the millisecond, toward the past, without an error of binary fractions.
func TestParseSeconds(t *testing.T) {
	f := func(s string, want int64) {
		t.Helper()
		got, ok := parseSeconds([]byte(s))
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	f("0", 0)
	f("1", 1000)
	f("1.", 1000)
	f("1.5", 1500)
	f("1.0009", 1000)
	f("-1.5", -1500)
	f("-0.0001", -1)
	f("-0.5", -500)
	f("1520879607.789", 1520879607789)
	f("1e3", 1_000_000)
	f(".5", 500)
	for _, bad := range []string{"", "-", "x", "1.x", "NaN", "Inf", "1e30", "99999999999999999999", "1.5.5"} {
		_, ok := parseSeconds([]byte(bad))
		require.False(t, ok, bad)
	}
}

// FuzzNumbers compares with strconv.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"1", "-0.5", "1e5", ".", "0x1", "1_0", "9007199254740993", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkFloat(t, s)
		parseSeconds([]byte(s))
		if n, ok := parseInt([]byte(s)); ok {
			want, err := strconv.ParseInt(s, 10, 64)
			require.NoError(t, err)
			require.Equal(t, want, n)
		}
	})
}
