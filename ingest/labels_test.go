package ingest_test

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/ingest"
	_ "varve/internal/testkit/draws"
)

// TestLabelSets shows that any valid pairs come out as upstream's own builder makes
// them, whatever order they are in, in memory that does not alias them.
func TestLabelSets(t *testing.T) {
	sets := ingest.NewLabelSets(ingest.Limits{}.WithDefaults())
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.MapOfN(rapid.StringN(1, 10, -1), rapid.StringN(0, 10, -1), 0, 10).Draw(t, "pairs")
		pairs["__name__"] = "up"
		want := labels.FromMap(pairs).WithoutEmpty()
		for name, value := range pairs {
			sets.Add(name, value)
		}
		got, err := sets.Series()
		require.NoError(t, err)
		require.True(t, labels.Equal(want, got), "%s %s", want, got)
	})
	buffer := []byte("up")
	sets.Add("__name__", string(buffer))
	got, err := sets.Series()
	require.NoError(t, err)
	buffer[0] = 'x'
	require.Equal(t, `{__name__="up"}`, got.String())
}

// TestLabelSetsRefused shows the rules that make a set invalid, that the builder is
// empty afterwards, and that an error stays short and printable.
func TestLabelSetsRefused(t *testing.T) {
	sets := ingest.NewLabelSets(ingest.Limits{LabelsMax: 3, NameBytesMax: 10, ValueBytesMax: 20}.WithDefaults())
	for _, pairs := range [][]string{
		{"job", "x"},
		{"__name__", ""},
		{"__name__", "a", "", "x"},
		{"__name__", "a", "b", "x", "b", "x"},
		{"__name__", "a", "b", "x", "c", "x", "d", "x"},
		{"__name__", "a", "12345678901", "x"},
		{"__name__", "a", "b", strings.Repeat("x", 21)},
		{"__name__", "a", "b", "\xff\x1b\r\n"},
		{"__name__", "a", "\xff", "x"},
		{"__name__", "a\xff"},
	} {
		for i := 0; i < len(pairs); i += 2 {
			sets.Add(pairs[i], pairs[i+1])
		}
		_, err := sets.Series()
		require.ErrorIs(t, err, ingest.ErrInvalidLabels, pairs)
		require.Less(t, len(err.Error()), 500)
		for _, c := range []byte(err.Error()) {
			require.True(t, c >= ' ' && c < 0x7f, "%q", err)
		}
		sets.Add("__name__", "fine")
		ls, err := sets.Series()
		require.NoError(t, err)
		require.Equal(t, 1, ls.Len())
	}
}

// TestExemplarLabels shows that exemplars need no name and are bounded in characters,
// not bytes.
func TestExemplarLabels(t *testing.T) {
	sets := ingest.NewLabelSets(ingest.Limits{}.WithDefaults())
	ls, err := sets.Exemplar()
	require.NoError(t, err)
	require.True(t, ls.IsEmpty())
	sets.Add("a", strings.Repeat("é", 127))
	ls, err = sets.Exemplar()
	require.NoError(t, err)
	require.Equal(t, 254, len(ls.Get("a")))
	sets.Add("a", strings.Repeat("é", 128))
	_, err = sets.Exemplar()
	require.ErrorIs(t, err, ingest.ErrInvalidLabels)
}

// TestBudget shows that a budget gives what it has and no more.
func TestBudget(t *testing.T) {
	b := ingest.NewBudget(10)
	require.True(t, b.TryAcquire(10))
	require.False(t, b.TryAcquire(1))
	b.Release(4)
	require.True(t, b.TryAcquire(4))
	require.Equal(t, int64(10), b.Used())
	b.Release(10)
	require.Panics(t, func() { b.Release(1) })
}

// TestLimitsDefaults shows that zero means the default and that set fields stay.
func TestLimitsDefaults(t *testing.T) {
	l := ingest.Limits{SeriesMax: 5}.WithDefaults()
	require.Equal(t, 5, l.SeriesMax)
	require.Equal(t, int64(10<<20), l.CompressedBytesMax)
	require.Equal(t, int64(32<<20), l.DecodedBytesMax)
	require.Equal(t, 64, l.LabelsMax)
	require.Equal(t, 1<<10, l.NameBytesMax)
	require.Equal(t, 16<<10, l.ValueBytesMax)
	require.Equal(t, 128, l.ExemplarCharsMax)
	require.NotNil(t, l.InFlight)
	require.Same(t, l.InFlight, l.WithDefaults().InFlight)
}
