package archive

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCheckPace reads no faster than it may, by bytes and by its share of the time, and ends when it is told to or when the disk is full.
func TestCheckPace(t *testing.T) {
	t.Parallel()
	const records, bytes = 10_000, 1000
	read := func(t *testing.T, o LiveCheck, room func() error, work time.Duration) (time.Duration, int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		p := &checkPace{ctx: ctx, o: &o, room: room, worked: began}
		for n := range records {
			if work > 0 {
				wait(ctx, work)
			}
			if err := p.read("raw", 0, 0, bytes); err != nil {
				return time.Since(began), n, err
			}
		}
		return time.Since(began), records, nil
	}
	plenty := func() error { return nil }
	synctest.Test(t, func(t *testing.T) {
		took, _, err := read(t, LiveCheck{BytesPerSecond: 1 << 20, Share: 1}, plenty, 0)
		require.NoError(t, err)
		require.InDelta(t, 10e6/(1<<20), took.Seconds(), 1, "by bytes")

		took, _, err = read(t, LiveCheck{BytesPerSecond: 1 << 40, Share: 0.25}, plenty, time.Millisecond)
		require.NoError(t, err)
		require.InDelta(t, 40, took.Seconds(), 2, "by share: 10 s of work")

		_, n, err := read(t, LiveCheck{BytesPerSecond: 10, Share: 1}, plenty, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, n, records)

		full := errors.New("full")
		_, _, err = read(t, LiveCheck{BytesPerSecond: 1 << 20, Share: 1}, func() error { return full }, 0)
		require.ErrorIs(t, err, full)
	})
}

// wait stands for work.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
