package main

import (
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"varve/archive"
	"varve/arrival"
	"varve/rocks"
)

// storageStatus returns the HTTP status for errors of the archive, 0 for others.
func storageStatus(err error) int {
	if _, ok := errors.AsType[*arrival.Unavailable](err); ok {
		return http.StatusServiceUnavailable
	}
	for _, failure := range []error{archive.ErrCorrupt, rocks.ErrCorrupt, rocks.ErrIO, rocks.ErrNoSpace} {
		if errors.Is(err, failure) {
			return http.StatusInternalServerError
		}
	}
	switch {
	case errors.Is(err, archive.ErrQueryLimit), errors.Is(err, archive.ErrOutOfRetention), errors.Is(err, archive.ErrIntakeChunk):
		return http.StatusUnprocessableEntity
	case errors.Is(err, archive.ErrDayTaken):
		return http.StatusConflict
	case errors.Is(err, archive.ErrStarting), errors.Is(err, archive.ErrBusy), errors.Is(err, rocks.ErrStalled), errors.Is(err, rocks.ErrClosed):
		return http.StatusServiceUnavailable
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return http.StatusInternalServerError
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return http.StatusInternalServerError
	}
	return 0
}
