package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"varve/archive"
	"varve/config"
	"varve/snapshot"
)

// lookBack are the flags of serve that make it answer queries over a snapshot.
type lookBack struct {
	id, dir *string
	*snapshotFlags
}

func addLookBack(c *kingpin.CmdClause, stderr io.Writer) *lookBack {
	return &lookBack{
		id:            c.Flag("snapshot", "Serve this snapshot, from a local copy, instead of the data directory: queries only. Nothing comes in, goes out or expires.").PlaceHolder("ID").String(),
		dir:           c.Flag("snapshot.dir", "Folder of such copies. They stay for the next time.").Default("snapshots").String(),
		snapshotFlags: addSnapshotFlags(c, false, fetches, stderr),
	}
}

// prepare fetches the copy unless it is there, and returns where it is.
func (l *lookBack) prepare(configFile string) (string, error) {
	if !snapshot.ValidID(*l.id) {
		return "", fmt.Errorf("--snapshot: %q is not the name of a snapshot; \"varve snapshot list\" shows them", *l.id)
	}
	path := filepath.Join(*l.dir, *l.id)
	if _, err := os.Stat(path); err == nil {
		return path, archive.Exists(path) // It gets its name when it is whole.
	}
	if *l.file == "" {
		return "", fmt.Errorf("%s is not there yet: --objstore.config-file must say where the snapshot is", path)
	}
	if err := os.MkdirAll(*l.dir, 0o700); err != nil {
		return "", err
	}
	c, err := config.Read(configFile, nil)
	if err != nil {
		return "", err
	}
	return path, l.use(nil, func(ctx context.Context, s *snapshot.Store, progress snapshot.Progress) error {
		_, _, err := restoreWhole(ctx, s, *l.id, path, c, progress)
		return err
	})
}
