package format_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive/format"
)

func sampleFloors() format.Floors {
	return format.Floors{Series: 19000, Levels: []format.LevelFloor{{Day: 20000}, {Resolution: 300_000, Day: 19500}, {Resolution: 3600_000, Day: 19000}}}
}

// TestFloors reads back what was written, and refuses what no version wrote.
func TestFloors(t *testing.T) {
	for _, want := range []format.Floors{{}, {Series: format.MinDay}, sampleFloors()} {
		var got format.Floors
		require.NoError(t, got.Parse(want.Append(nil)))
		require.Equal(t, want, got)
	}
	f := sampleFloors()
	require.Equal(t, format.Day(19500), f.Of(300_000))
	require.Equal(t, format.MinDay, f.Of(60_000))
	good := f.Append(nil)
	for n := range good {
		var got format.Floors
		require.ErrorIs(t, got.Parse(good[:n]), format.ErrCorrupt)
	}
	f.Levels[1].Resolution = 0
	for _, bad := range [][]byte{append(good[:len(good):len(good)], 0), append([]byte{2}, good[1:]...), f.Append(nil)} {
		var got format.Floors
		require.ErrorIs(t, got.Parse(bad), format.ErrCorrupt)
	}
	day, err := format.ParseTrimName(format.AppendTrimName(nil, 20000))
	require.NoError(t, err)
	require.Equal(t, format.Day(20000), day)
	_, err = format.ParseTrimName([]byte(format.MetaTrimPrefix))
	require.ErrorIs(t, err, format.ErrCorrupt)
	day, err = format.ParseLeaseName(format.AppendLeaseName(nil, -3))
	require.NoError(t, err)
	require.Equal(t, format.Day(-3), day)
	_, err = format.ParseLeaseName(append(format.AppendLeaseName(nil, 1), 0))
	require.ErrorIs(t, err, format.ErrCorrupt)
}

// FuzzFloors reads anything: what is read is written back and read the same.
func FuzzFloors(f *testing.F) {
	floors := sampleFloors()
	f.Add(floors.Append(nil))
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, again format.Floors
		if got.Parse(b) != nil {
			return
		}
		require.NoError(t, again.Parse(got.Append(nil)))
		require.Equal(t, got, again)
	})
}
