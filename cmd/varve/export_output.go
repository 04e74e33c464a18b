package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// writeExport calls f with what writes to a file, or to standard output for -. The file gets its name when it is whole.
func writeExport(name string, stdout io.Writer, f func(io.Writer) error) (err error) {
	if name == "-" {
		return f(stdout)
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		}
	}()
	if err := compressed(name, file, f); err != nil {
		return err
	}
	// Temporary files are for nobody else.
	if err := file.Chmod(0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return file.Close()
}

// compressed calls f with what compresses as the name says.
func compressed(name string, out io.Writer, f func(io.Writer) error) error {
	var zip io.WriteCloser
	var err error
	switch {
	case strings.HasSuffix(name, ".gz"):
		zip = gzip.NewWriter(out)
	case strings.HasSuffix(name, ".zst"):
		if zip, err = zstd.NewWriter(out); err != nil {
			return err
		}
	default:
		return f(out)
	}
	return errors.Join(f(zip), zip.Close())
}
