package ingest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/ingest"
	"varve/internal/testkit"
)

// TestDoorOfArchive shows a door with everything on before a real archive: what was
// taken comes out after a restart of both, with the replica that was elected.
func TestDoorOfArchive(t *testing.T) {
	dir, c := testkit.MemoryDir(t), newClock()
	open := func() (*archive.Archive, *ingest.Door) {
		o := testkit.Options()
		o.Now = c.Now
		a := testkit.Open(t, dir, o)
		return a, newDoor(t, ingest.DoorOptions{
			Sink: a, Notes: a, Now: c.Now, HA: pair, Thin: every10s, SeriesMax: 10,
			Rules: ingest.Rules{Exclude: selectors(t, `{__name__="down"}`), External: labels.FromStrings("dc", "east")},
		})
	}
	a, d := open()
	begin := c.millis()
	for i := range int64(25) {
		for _, replica := range []string{"a", "b"} {
			res, err := send(t.Context(), d, sample(ofReplica("c", replica), begin+i*1000, float64(i)), sample(labels.FromStrings("__name__", "down"), begin, 1))
			require.NoError(t, err)
			require.Equal(t, replica == "a", res.Samples == 1)
		}
		c.add(time.Second)
		require.NoError(t, d.Advance(t.Context()))
	}
	require.NoError(t, a.Close())
	a, d = open()
	res, err := send(t.Context(), d, sample(ofReplica("c", "b"), begin+26_000, 99))
	require.NoError(t, err)
	require.Zero(t, res.Samples, "the other is elected still")
	c.add(time.Minute)
	require.NoError(t, d.Advance(t.Context()))

	q, err := a.Querier(begin, begin+3_600_000)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	require.True(t, set.Next())
	require.Equal(t, `{__name__="up", cluster="c", dc="east"}`, set.At().Labels().String())
	got := map[int64]float64{}
	for it := set.At().Iterator(nil); it.Next() != 0; {
		at, v := it.At()
		got[at-begin] = v
	}
	require.Equal(t, map[int64]float64{0: 0, 10_000: 10, 20_000: 20, 30_000: 24, 40_000: 24}, got)
	require.False(t, set.Next())
	require.NoError(t, set.Err())
}

// TestDoorLongNames shows that names for which a note has no room are refused, and keep nothing else from being stored.
func TestDoorLongNames(t *testing.T) {
	c := newClock()
	o := testkit.Options()
	o.Now = c.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	limits := ingest.Limits{ValueBytesMax: 2 << 20}
	d := newDoor(t, ingest.DoorOptions{Sink: a, Notes: a, Now: c.Now, HA: pair, Thin: every10s, Limits: limits})
	many := []string{"__name__", "huge"}
	for i := range 63 {
		many = append(many, fmt.Sprintf("l%02d", i), strings.Repeat("x", 17<<10))
	}
	for _, ls := range []labels.Labels{labels.FromStrings(many...), ofReplica(strings.Repeat("c", 2<<20), "r")} {
		res, err := send(t.Context(), d, sample(ls, c.millis(), 1), sample(ofReplica("c", "r"), c.millis(), 1))
		require.NoError(t, err)
		require.Equal(t, 1, res.Rejected[arrival.ReasonInvalidLabels])
		require.Equal(t, 1, res.Samples)
	}
}
