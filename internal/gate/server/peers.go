package server

import (
	"os"
	"path/filepath"
	"testing"
)

// Peer returns the path of a program that peers/build.sh left in the cache, and ends the test when there is none. name is what
// the file's name begins with, such as telegraf-.
func Peer(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("PEERS_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			Lacking(t, "no %s: there is no cache directory: %v", name, err)
		}
		dir = filepath.Join(cache, "varve-peers")
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"*"))
	if err != nil || len(found) == 0 {
		Lacking(t, "no %s in %s: make peers", name, dir)
	}
	return found[len(found)-1]
}
