package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/archive"
	"varve/internal/testkit"
)

// TestCheckingCloses closes while several ask for checks: each is refused, begun and ended, or not begun at all, so that none is at work
// on an archive that is closed next, and no copy stays.
func TestCheckingCloses(t *testing.T) {
	for range 5 {
		dir := testkit.MemoryDir(t)
		a := testkit.Open(t, dir, archive.Options{})
		s := &server{o: serverOptions{logger: slog.New(slog.DiscardHandler)}, dataDir: dir, registry: prometheus.NewRegistry()}
		c := s.newChecking(a)
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for {
					err := c.RunCheck("user:a", 1<<20)
					if errors.Is(err, errStopping) {
						return
					}
					if err != nil && !errors.Is(err, api.ErrChecking) {
						t.Error(err)
						return
					}
				}
			})
		}
		require.Eventually(t, func() bool { return c.CheckStatus() != nil }, patience, time.Millisecond)
		c.close()
		status := c.CheckStatus()
		require.NotNil(t, status.Finished)
		asking.Wait()
		require.Equal(t, status, c.CheckStatus(), "none began later")
		require.ErrorIs(t, c.RunCheck("user:a", 0), errStopping)
		require.NoDirExists(t, filepath.Join(dir, checkingDir))
	}
}
