package main

import (
	"context"
	"time"

	"varve/benchmarks/dataset"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/wire"
)

const (
	historyConnections = 4
	historyBatch       = 2000
)

// history is the load of the queries: some hosts over hours, more of them over the
// last hour. The hosts with the long history fill the first cluster.
type history struct {
	d                          *dataset.Dataset
	longSeries                 int
	roundsLong, roundsShort    int
	before, together           [][]wire.Frame
	samples                    int64
	startMillis, shortestStart int64
	endMillis                  int64
}

// newHistory encodes the load.
func (b *bench) newHistory() (*history, error) {
	s := b.settings
	h := &history{longSeries: s.hostsLong * dataset.HostSeries, roundsLong: s.roundsLong, roundsShort: min(s.roundsShort, s.roundsLong)}
	var err error
	h.d, err = b.dataset((s.hostsLong+s.hostsShort)*dataset.HostSeries, s.hostsLong, h.roundsLong)
	if err != nil {
		return nil, err
	}
	b.show("encoding %d series", h.d.Len())
	first := h.roundsLong - h.roundsShort
	encoder := h.d.NewEncoder(1, historyBatch)
	h.before = encoder.Rounds(historyConnections, 0, h.longSeries, 0, first)
	h.together = encoder.Rounds(historyConnections, 0, h.d.Len(), first, h.roundsShort)
	h.samples = int64(h.longSeries)*int64(first) + int64(h.d.Len())*int64(h.roundsShort)
	h.startMillis = h.d.Config().StartMillis
	h.shortestStart = h.startMillis + int64(first)*stepMillis
	h.endMillis = h.startMillis + int64(h.roundsLong)*stepMillis
	return h, nil
}

// load sends all of it and lets the server finish.
func (h *history) load(ctx context.Context, b *bench, server *peer.Server) error {
	for _, frames := range [][][]wire.Frame{h.before, h.together} {
		if _, err := b.push(ctx, server, 1, frames, load.Options{For: 5 * time.Minute}); err != nil {
			return err
		}
	}
	server.Settle(ctx, settleLimit)
	return nil
}
