package format_test

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"

	"varve/archive/format"
)

func sampleTombstone() format.Tombstone {
	return format.Tombstone{
		State: format.TombstoneActive, Sequence: 300, CreatedMillis: 5, UntilMillis: 6,
		FromMillis: 20000 * format.DayMillis, ToMillis: 20010*format.DayMillis - 1,
		Series: 3, Days: []format.DayRange{{First: 20000, Last: 20001}, {First: 20005, Last: 20005}},
		Refs: roaring.BitmapOf(1, 2, 1<<16+7), Selectors: []string{"up"}, Author: "me", Reason: "test",
		CleanedBefore: 20000, Samples: 9, Exemplars: 1, Buckets: 5, Bytes: -2,
	}
}

// TestTombstone pins the bytes of a tombstone, and that it reads back what was written in every state.
func TestTombstone(t *testing.T) {
	s := sampleTombstone()
	b := s.Append(nil)
	require.Equal(t, "01"+"01"+"ac02"+ // version, state, sequence
		"0a"+"0c"+"00"+"80809ccdca64"+"fedf9885d164"+ // created, until, ended, from, to
		"03"+"09"+"01"+"05"+"03"+"c0b802"+ // series, samples, exemplars, buckets, bytes, cleaned before
		"01"+"027570"+"026d65"+"0474657374"+ // selectors, author, reason
		"02"+"c0b802"+"01"+"08"+"00"+ // days
		"02"+"00"+"05"+"0101000100"+"01"+"03"+"000700", // refs
		hex.EncodeToString(b))
	for _, state := range format.TombstoneStates {
		s := sampleTombstone()
		if s.State = state; state.Ended() {
			s.Refs, s.EndedMillis = nil, 7
		}
		var back format.Tombstone
		require.NoError(t, back.Parse(s.Append(nil)))
		if s.Refs != nil {
			require.True(t, s.Refs.Equals(back.Refs))
		}
		s.Refs, back.Refs = nil, nil
		require.Equal(t, s, back, state)
	}
}

// TestTombstoneRefused has what no writer writes.
func TestTombstoneRefused(t *testing.T) {
	for name, spoil := range map[string]func(*format.Tombstone){
		"state":                  func(s *format.Tombstone) { s.State = 5 },
		"no state":               func(s *format.Tombstone) { s.State = 0 },
		"sequence":               func(s *format.Tombstone) { s.Sequence = 0 },
		"wrong way round":        func(s *format.Tombstone) { s.FromMillis, s.ToMillis = s.ToMillis, s.FromMillis },
		"beyond all times":       func(s *format.Tombstone) { s.ToMillis = format.MaxTimeMillis + 1 },
		"no days":                func(s *format.Tombstone) { s.Days = nil },
		"days out of order":      func(s *format.Tombstone) { s.Days[1].First, s.Days[1].Last = 20001, 20001 },
		"days outside":           func(s *format.Tombstone) { s.Days[1].Last = 20010 },
		"another number":         func(s *format.Tombstone) { s.Series = 4 },
		"no refs":                func(s *format.Tombstone) { s.Refs = nil },
		"refs although it ended": func(s *format.Tombstone) { s.State = format.TombstoneCleaned },
	} {
		s := sampleTombstone()
		spoil(&s)
		var back format.Tombstone
		require.ErrorIs(t, back.Parse(s.Append(nil)), format.ErrCorrupt, name)
	}
	s := sampleTombstone()
	b := s.Append(nil)
	for n := range b {
		var back format.Tombstone
		require.ErrorIs(t, back.Parse(b[:n]), format.ErrCorrupt, n)
	}
}

// TestTombstoneID shows that an id is its text and its key, and that ids sort by time.
func TestTombstoneID(t *testing.T) {
	x, err := format.NewTombstoneID(time.UnixMilli(1_700_000_000_000))
	require.NoError(t, err)
	y, err := format.NewTombstoneID(time.UnixMilli(1_700_000_000_001))
	require.NoError(t, err)
	require.Less(t, x.String(), y.String())
	back, err := format.ParseTombstoneText(x.String())
	require.NoError(t, err)
	require.Equal(t, x, back)
	back, err = format.ParseTombstoneKey(x[:])
	require.NoError(t, err)
	require.Equal(t, x, back)
	for _, text := range []string{"", "x", x.String()[1:], x.String()[:25] + "u"} {
		_, err := format.ParseTombstoneText(text)
		require.Error(t, err, text)
	}
	_, err = format.ParseTombstoneKey(x[1:])
	require.ErrorIs(t, err, format.ErrCorrupt)
}

// FuzzTombstone reads anything: what is read is written back and read the same.
func FuzzTombstone(f *testing.F) {
	s := sampleTombstone()
	f.Add(s.Append(nil))
	s.State, s.Refs = format.TombstoneUndone, nil
	f.Add(s.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, back format.Tombstone
		if s.Parse(b) != nil {
			return
		}
		require.NoError(t, back.Parse(s.Append(nil)))
		if s.Refs != nil {
			require.True(t, s.Refs.Equals(back.Refs))
		}
		s.Refs, back.Refs = nil, nil
		require.Equal(t, s, back)
	})
}
