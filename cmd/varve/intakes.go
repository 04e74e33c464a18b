package main

import (
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"varve/archive"
	"varve/arrival"
	"varve/config"
	"varve/intake/direct"
	"varve/intake/wire"
)

// intakeHandlers are how imports bring whole days to the server, by path.
func intakeHandlers(a *archive.Archive, c *config.Config) map[string]http.Handler {
	o := direct.Options{LabelsMax: c.Ingest.MaxLabels, NameBytesMax: int(c.Ingest.MaxLabelName), ValueBytesMax: int(c.Ingest.MaxLabelValue)}
	forwarding := o
	forwarding.Forward = true
	incarnation := a.Incarnation()
	return wire.Handlers(wire.HandlerOptions{
		Archive: hex.EncodeToString(incarnation[:]),
		Target:  direct.New(a, o), Forwarding: direct.New(a, forwarding),
		Unavailable: func(err error) (after time.Duration, ok bool) {
			if u, is := errors.AsType[*arrival.Unavailable](err); is {
				return u.RetryAfter, true
			}
			// It starts, or stops.
			return time.Second, errors.Is(err, archive.ErrStarting) || storageStatus(err) == http.StatusServiceUnavailable
		},
	})
}
