package archive_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
	"varve/rocks"
)

// record is a record of a family.
type record struct{ key, value []byte }

// recordsOf reads a family of a closed archive.
func recordsOf(t testing.TB, dir string, f format.Family) []record {
	t.Helper()
	db, err := archive.OpenDatabase(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	it := db.NewIterator(rocks.Family(f), rocks.IterOptions{})
	defer it.Close()
	var out []record
	for it.SeekToFirst(); it.Valid(); it.Next() {
		out = append(out, record{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	require.NoError(t, it.Err())
	return out
}

// change puts a value into a family of a closed archive, or deletes the key if it is nil.
func change(t testing.TB, dir string, f format.Family, key, value []byte) {
	t.Helper()
	db, err := archive.OpenDatabase(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var b rocks.Batch
	if value == nil {
		b.Delete(rocks.Family(f), key)
	} else {
		b.Put(rocks.Family(f), key, value)
	}
	require.NoError(t, db.Write(&b, true))
}

// faultsOf checks a closed archive.
func faultsOf(t testing.TB, dir string) []archive.Fault {
	t.Helper()
	var faults []archive.Fault
	_, err := archive.Check(dir, func(f archive.Fault) { faults = append(faults, f) })
	require.NoError(t, err)
	return faults
}

// tryRead reads one metric of the tests, or tells why not.
func tryRead(t testing.TB, a *archive.Archive, metric string) (series int, err error) {
	t.Helper()
	q, err := a.Querier(day0, day0+86400_000)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", metric))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != 0 {
		}
		if it.Err() != nil {
			return series, it.Err()
		}
		series++
	}
	return series, set.Err()
}

// TestSealedDamage flips a bit at many places of bundles and clocks, and takes some away.
// Every time the check names the family and the key, a query that needs what is damaged
// fails and says what and where, and all other metrics answer.
func TestSealedDamage(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	<-a.Started()
	for step := range int64(40) {
		var points []point
		for i := range 30 {
			// The metrics 0 to 4 have targets of their own, and so clocks.
			points = append(points, point{series: i, t: day0 + step*15_000 + int64(i%5), v: float64(step * int64(i))})
		}
		write(t, a, points)
	}
	testkit.SealAll(t, a)
	require.NoError(t, a.Close())
	require.Empty(t, faultsOf(t, dir))

	damaged := func(f format.Family, key []byte, what string) {
		t.Helper()
		faults := faultsOf(t, dir)
		require.NotEmpty(t, faults, what)
		if key != nil {
			require.True(t, slices.ContainsFunc(faults, func(x archive.Fault) bool {
				return x.Family == format.FamilyNames[f] && string(x.Key) == string(key)
			}), "%s: %v", what, faults)
		}
		a, err := archive.Open(dir, options())
		require.NoError(t, err)
		<-a.Started()
		failed, answered := 0, 0
		for m := range 5 {
			n, err := tryRead(t, a, fmt.Sprint("metric_", m))
			if err == nil {
				answered += n
				continue
			}
			failed++
			require.ErrorIs(t, err, archive.ErrCorrupt, what)
			require.ErrorContains(t, err, fmt.Sprintf("%x", key), what)
			require.ErrorContains(t, err, "check data", what)
		}
		require.Positive(t, failed, what)
		require.Positive(t, answered, what)
		require.NoError(t, a.Close())
	}
	for _, f := range []format.Family{format.FamilyRaw, format.FamilyClocks} {
		records := recordsOf(t, dir, f)
		require.NotEmpty(t, records)
		// One of the records that a single metric needs.
		r := records[len(records)/2]
		for at := 0; at < len(r.value); at += 1 + len(r.value)/7 {
			bad := slices.Clone(r.value)
			bad[at] ^= 1 << (at % 8)
			change(t, dir, f, r.key, bad)
			damaged(f, r.key, fmt.Sprintf("byte %d of %s %x", at, format.FamilyNames[f], r.key))
		}
		if f == format.FamilyClocks {
			change(t, dir, f, r.key, nil)
			faults := faultsOf(t, dir)
			require.True(t, slices.ContainsFunc(faults, func(x archive.Fault) bool {
				return strings.Contains(x.What, fmt.Sprintf("%x", r.key))
			}), "%v", faults)
		} else {
			// A bundle that is gone leaves an answer that is whole to look at: only the
			// digest of the day tells.
			change(t, dir, f, r.key, nil)
			faults := faultsOf(t, dir)
			require.True(t, slices.ContainsFunc(faults, func(x archive.Fault) bool {
				return strings.Contains(x.What, "digest")
			}), "%v", faults)
		}
		change(t, dir, f, r.key, r.value)
		require.Empty(t, faultsOf(t, dir))
	}
}
