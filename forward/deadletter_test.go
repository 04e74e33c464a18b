package forward_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
)

// picky is a peer that takes nothing of what is prepared for it.
func picky() *peer {
	p := newPeer()
	p.prepare = func(*forward.Target) error { return fmt.Errorf("I take nothing") }
	return p
}

// TestLettersAreExact shows that a letter has the sample bit for bit: a NaN's bits, a histogram as remote write has it.
func TestLettersAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeArchive()
		a.named(1)
		stale := math.Float64frombits(0x7ff0000000000002)
		a.write(record{
			refs: []storage.SeriesRef{1, 1}, times: []int64{-5, 1700000000123}, values: []float64{0.1, stale},
			histograms: []archive.ArrivedHistogram{{Ref: 1, Histogram: arrival.Histogram{TimeMillis: 9, StartMillis: 4, Float: floatHistogram(3)}}},
		})
		o := output(picky())
		o.Name = "a/b name"
		r := start(t, a, filepath.Join(t.TempDir(), "made", "when", "needed"), o)
		pass(time.Second)
		path := filepath.Join(r.dir, "a%2Fb%20name.jsonl")
		require.Equal(t, path, r.status(t).DeadLetters.Path)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode())
		require.Equal(t, st.Size(), r.status(t).DeadLetters.Bytes)
		var got []map[string]any
		for _, line := range letters(t, r.dir) {
			var l map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			got = append(got, l)
		}
		require.Len(t, got, 3)
		require.Equal(t, []any{"unwritable", "I take nothing", "0.1", -5.0, nil},
			[]any{got[0]["class"], got[0]["reason"], got[0]["value"], got[0]["timestamp"], got[0]["bits"]})
		require.Equal(t, []any{"NaN", "0x7ff0000000000002", 1700000000123.0}, []any{got[1]["value"], got[1]["bits"], got[1]["timestamp"]})
		require.Equal(t, []any{nil, 9.0, 4.0}, []any{got[2]["value"], got[2]["timestamp"], got[2]["startTimestamp"]})
		raw, err := json.Marshal(got[2]["encoded"])
		require.NoError(t, err)
		var encoded []byte
		require.NoError(t, json.Unmarshal(raw, &encoded))
		var h prompb.Histogram
		require.NoError(t, h.Unmarshal(encoded))
		require.True(t, floatHistogram(3).Equals(h.ToFloatHistogram()))
		require.Equal(t, archive.Tally{Refused: 3}, a.tally("a/b name"))
	})
}

// TestLettersAreBounded shows that a file that is full is put aside in the place of the one before, and that letters are written no
// faster than they may be.
func TestLettersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		p.prepare = func(*forward.Target) error { return fmt.Errorf("%s", strings.Repeat("long ", 20_000)) }
		refs := a.named(100)
		for i := range 20 {
			a.floats(1000*i, refs...)
		}
		// 200 MB of letters, of which 16 MiB may be written at once and then 4 MiB a second.
		r := start(t, a, t.TempDir(), output(p))
		pass(20 * time.Second)
		require.False(t, a.settled("out"))
		pass(time.Minute)
		require.Equal(t, archive.Tally{Refused: 2000}, a.tally("out"))
		total := int64(0)
		for _, name := range []string{"out.jsonl", "out.jsonl.old"} {
			st, err := os.Stat(filepath.Join(r.dir, name))
			require.NoError(t, err)
			require.LessOrEqual(t, st.Size(), int64(64<<20))
			require.NotZero(t, st.Size())
			total += st.Size()
		}
		require.Greater(t, total, int64(64<<20))
	})
}

// TestLettersWait shows that what can't be written to the dead letters isn't settled, that the output shows why, and goes on when it
// can; and that a line that a crash cut off spoils no other.
func TestLettersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeArchive()
		a.floats(1, a.named(3)...)
		dir := filepath.Join(t.TempDir(), "letters")
		require.NoError(t, os.WriteFile(dir, nil, 0o600))
		r := start(t, a, dir, output(picky()))
		pass(time.Minute)
		require.Equal(t, archive.Tally{}, a.tally("out"))
		s := r.status(t)
		require.Equal(t, forward.StateFailed, s.State)
		require.Contains(t, s.Error, "dead letters")

		require.NoError(t, os.Remove(dir))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "out.jsonl"), []byte(`{"cut o`), 0o600))
		pass(time.Minute)
		require.Equal(t, archive.Tally{Refused: 3}, a.tally("out"))
		require.Equal(t, forward.StateRunning, r.status(t).State)
		lines := letters(t, dir)
		require.Len(t, lines, 4)
		for _, line := range lines[1:] {
			require.True(t, json.Valid([]byte(line)), line)
		}
	})
}

// TestLettersFullDisk shows that a full disk makes the output wait, and that it goes on when there is space.
func TestLettersFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	synctest.Test(t, func(t *testing.T) {
		a, dir := newFakeArchive(), t.TempDir()
		a.floats(1, a.named(3)...)
		require.NoError(t, os.Symlink("/dev/full", filepath.Join(dir, "out.jsonl")))
		r := start(t, a, dir, output(picky()))
		pass(time.Minute)
		require.Equal(t, archive.Tally{}, a.tally("out"))
		require.Contains(t, r.status(t).Error, "no space left")
		require.NoError(t, os.Remove(filepath.Join(dir, "out.jsonl")))
		pass(time.Minute)
		require.Equal(t, archive.Tally{Refused: 3}, a.tally("out"))
		require.Len(t, letters(t, dir), 3)
	})
}

// TestLettersSurviveStop shows that what was written to the dead letters when the output stops is settled.
func TestLettersSurviveStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.floats(1, a.named(10)...)
		p.answer = func(_ context.Context, _ int, b *forward.Batch) (out forward.Outcome, err error) {
			<-time.NewTimer(time.Second).C
			out.Refusals = []forward.Refusal{{Series: 2, Float: -1, Histogram: -1, Reason: "bad"}}
			return out, nil
		}
		r := start(t, a, t.TempDir(), output(p))
		synctest.Wait()
		r.stop()
		require.Equal(t, archive.Tally{Sent: 9, Refused: 1}, a.tally("out"))
		require.Len(t, letters(t, r.dir), 1)
	})
}
