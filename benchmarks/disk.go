package main

import (
	"context"
	"math"
	"net/url"
	"strconv"

	"varve/benchmarks/dataset"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

// disk measures the data directory after the load of the queries.
func disk(ctx context.Context, b *bench) error {
	h, err := b.newHistory()
	if err != nil {
		return err
	}
	b.describe(h.d)
	for i, spec := range b.specs {
		if spec.Address != "" {
			b.say("the directory of %s is not known: left out", spec.Name)
			continue
		}
		point, err := b.diskOnce(ctx, spec, h)
		if err != nil {
			return err
		}
		b.entries[i].Disk = append(b.entries[i].Disk, point)
	}
	return nil
}

// diskOnce measures one server.
func (b *bench) diskOnce(ctx context.Context, spec peer.Spec, h *history) (point result.Disk, err error) {
	server, err := b.start(ctx, spec, "disk-"+spec.Name)
	if err != nil {
		return point, err
	}
	defer func() {
		if discarded := b.discard(server); err == nil {
			err = discarded
		}
	}()
	if err := h.load(ctx, b, server); err != nil {
		return point, err
	}
	point = result.Disk{Series: h.d.Len(), Samples: h.samples}
	size, err := server.Disk()
	if err != nil {
		return point, err
	}
	point.Bytes, point.LogBytes = size.Bytes, size.LogBytes
	if err := h.readBack(ctx, server, &point); err != nil {
		return point, err
	}
	if err := server.Stop(stopLimit); err != nil {
		return point, err
	}
	if size, err = server.Disk(); err != nil {
		return point, err
	}
	point.StoppedBytes, point.StoppedLogBytes = size.Bytes, size.LogBytes
	b.say("disk %-16s %.2f B/sample, of it %.2f logs; stopped %.2f, of it %.2f; %d of %d exact", spec.Name+":", float64(point.Bytes)/float64(h.samples), float64(point.LogBytes)/float64(h.samples),
		float64(point.StoppedBytes)/float64(h.samples), float64(point.StoppedLogBytes)/float64(h.samples), point.Exact, point.Compared)
	return point, nil
}

// readBack compares the samples of the first and the last host, target by target,
// with those that were sent.
func (h *history) readBack(ctx context.Context, server *peer.Server, point *result.Disk) error {
	for _, host := range []int{0, h.d.Len()/dataset.HostSeries - 1} {
		sent := h.sentBy(host)
		for instance, series := range sent {
			window := strconv.Itoa(h.roundsLong*stepMillis/1000 + 60)
			parameters := url.Values{"query": {`{instance="` + instance + `"}[` + window + `s]`}, "time": {strconv.FormatInt(h.endMillis/1000+1, 10)}}
			body, _, err := ask(ctx, server, "query", parameters, queryLimit)
			if err != nil {
				return err
			}
			got, err := parseAnswer(body)
			if err != nil {
				return err
			}
			exact, compared := countExact(got, series)
			point.Exact += exact
			point.Compared += compared
		}
	}
	return nil
}

// sentBy are the samples that were sent of a host: the bits of the values by time,
// by series, by instance.
func (h *history) sentBy(host int) map[string]map[string]map[int64]uint64 {
	sent := map[string]map[string]map[int64]uint64{}
	walk := h.d.NewWalk()
	for i := host * dataset.HostSeries; i < (host+1)*dataset.HostSeries; i++ {
		samples := map[int64]uint64{}
		for round := h.firstRound(i); round < h.roundsLong; round++ {
			samples[h.d.Time(i, round)] = math.Float64bits(walk.Next(i, round))
		}
		instance := h.d.Label(i, "instance")
		if sent[instance] == nil {
			sent[instance] = map[string]map[int64]uint64{}
		}
		sent[instance][labelText(h.d.Labels(i))] = samples
	}
	return sent
}

// countExact counts the samples sent, and those of them that came back with the
// same bits.
func countExact(got answer, sent map[string]map[int64]uint64) (exact, compared int64) {
	for _, samples := range sent {
		compared += int64(len(samples))
	}
	for _, series := range got.series {
		samples := sent[series.name]
		for _, sample := range series.samples {
			bits, known := samples[sample.millis]
			value, err := strconv.ParseFloat(sample.value, 64)
			if known && err == nil && math.Float64bits(value) == bits {
				exact++
			}
		}
	}
	return exact, compared
}
