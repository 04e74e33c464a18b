package archive_test

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
)

// forget forgets series, perhaps not to the end; at its steps other things come between.
func (w *deleteWorld) forget() {
	if w.r.IntN(3) > 0 {
		w.deleteWhole()
	}
	left := 1 + w.r.IntN(20)
	pace := func(context.Context, time.Duration) error {
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}
	if w.r.IntN(2) == 0 {
		pace = nil
	}
	_, err := w.a.Forget(context.Background(), pace)
	if !errors.Is(err, errEnough) {
		require.NoError(w.t, err, w.fatal("forget"))
	}
	w.check("forgotten")
}

// deleteWhole deletes all of some series, and removes it.
func (w *deleteWorld) deleteWhole() {
	w.inside = true
	defer func() { w.inside = false }()
	selector, hides := drawSelector(w.r)
	d, ok := deleteSeries(w.t, w.a, selector, math.MinInt64, math.MaxInt64)
	w.h.now++
	if !ok {
		return
	}
	w.h.deletes = append(w.h.deletes, &deletion{id: d.ID, hides: hides, mint: math.MinInt64, maxt: math.MaxInt64, at: w.h.now, cleaned: true})
	_, err := w.a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(w.t, err)
	if w.r.IntN(2) == 0 {
		w.closePins()
	}
	require.NoError(w.t, w.a.Maintain(true))
	_, err = w.a.Reclaim()
	require.NoError(w.t, err)
}

// forgetAll forgets what can be, and shows that the series that are left are those with samples.
func (w *deleteWorld) forgetAll(m model) {
	for _, d := range w.h.deletes {
		d.cleaned = true
	}
	forgetTwice(w.t, w.a)
	left := 0
	for _, samples := range m {
		if len(samples) > 0 {
			left++
		}
	}
	require.Equal(w.t, left, w.a.CountKeys(format.FamilySeries, ""), w.fatal("series"))
	require.Equal(w.t, left, w.a.CountKeys(format.FamilyLookup, ""), w.fatal("lookups"))
}

// forgetTwice forgets what there is: a second one finds what the first began, or what went meanwhile.
func forgetTwice(t require.TestingT, a *archive.Archive) {
	for range 2 {
		require.NoError(t, a.Maintain(true))
		_, err := a.Reclaim()
		require.NoError(t, err)
		_, err = a.Forget(context.Background(), nil)
		require.NoError(t, err)
	}
}

// forget forgets series, and may be killed, or ended, at any step; and writers come between.
func (w *keptWorld) forget() {
	steps, die, end := 0, -1, -1
	switch w.r.IntN(4) {
	case 0:
		die = 1 + w.r.IntN(8)
	case 1:
		end = w.r.IntN(8)
	}
	if w.r.IntN(3) > 0 {
		w.closePins()
	}
	require.NoError(w.t, w.a.Maintain(true))
	_, err := w.a.Reclaim()
	require.NoError(w.t, err)
	var killed *archive.Archive
	var to string
	w.a.OnStep(func(step string) {
		if steps++; steps == die && killed == nil {
			w.o.Retention = archive.Retention{Rules: keptPolicies[w.policy].rules}
			killed, to = crash(w.t, w.dir, w.o)
		}
		if killed == nil && w.r.IntN(4) == 0 {
			w.write()
		}
	})
	pace := func(context.Context, time.Duration) error {
		if end--; end == -1 {
			return errEnough
		}
		return nil
	}
	if w.r.IntN(2) == 0 {
		pace = nil
	}
	_, err = w.a.Forget(context.Background(), pace)
	if !errors.Is(err, errEnough) {
		require.NoError(w.t, err)
	}
	w.a.OnStep(nil)
	w.goOn(killed, to)
}
