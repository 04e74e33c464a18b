package canary

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
)

// series is a pattern with what it is called.
type series struct {
	pattern *pattern
	labels  labels.Labels
}

// round is the batch that is filled again for each round.
type round struct {
	batch arrival.Batch
	keys  []arrival.Key
}

func (r *round) prepare(seed arrival.Seed, all []series) {
	for i := range all {
		r.keys = append(r.keys, seed.Hash(arrival.AppendLabels(nil, all[i].labels)))
	}
}

// fill makes the batch that of a round. Rows have no refs yet.
func (r *round) fill(all []series, atMillis, previousMillis int64) {
	b := &r.batch
	b.Reset()
	b.Unforwarded = true // It is a check of this archive, and peers take offence at NaN.
	for i := range all {
		p, row := all[i].pattern, arrival.Row{Key: r.keys[i], First: uint32(len(b.Times))}
		switch {
		case p.ints != nil:
			b.Histograms = append(b.Histograms, arrival.Histogram{Row: uint32(i), TimeMillis: atMillis, Int: p.ints(atMillis)})
		case p.floats != nil:
			b.Histograms = append(b.Histograms, arrival.Histogram{Row: uint32(i), TimeMillis: atMillis, Float: p.floats(atMillis)})
		default:
			bits := math.Float64bits(float64(previousMillis))
			if p.float != nil {
				bits = p.float(atMillis)
			}
			b.Times, b.Values, row.Count = append(b.Times, atMillis), append(b.Values, bits), 1
		}
		b.Rows = append(b.Rows, row)
	}
}

// write writes a round and says whether all of it was acknowledged. One that wasn't may be there or not.
func (c *Canary) write(ctx context.Context, atMillis int64) bool {
	if !c.agenda.begun {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	begin := c.o.Now()
	err := c.send(ctx, atMillis)
	switch {
	case err == nil:
		c.m.writeSeconds.Observe(c.o.Now().Sub(begin).Seconds())
		c.m.written.Add(float64(len(c.series)))
		c.m.lastWrite.Set(float64(c.o.Now().UnixMilli()) / 1000)
		c.ledger.acknowledged(atMillis)
		if c.failing {
			c.o.Logger.Info("The canary writes again.")
		}
	case errors.Is(err, context.Canceled):
		return false // The server stops.
	default:
		c.m.failures.WithLabelValues("write").Inc()
		if !c.failing {
			c.o.Logger.Warn("The canary could not write. It tries at every interval and tells when it can again.", "err", err)
		}
	}
	c.failing = err != nil
	return err == nil
}

func (c *Canary) send(ctx context.Context, atMillis int64) error {
	c.round.fill(c.series, atMillis, c.ledger.last)
	b := &c.round.batch
	if c.o.Writer.Lookup(b.Rows) > 0 {
		if err := c.resolve(ctx, b.Rows); err != nil {
			return err
		}
	}
	r, err := c.o.Writer.Write(ctx, b)
	if err != nil {
		return err
	}
	if n := r.Samples + r.Histograms; n != len(c.series) {
		return fmt.Errorf("%d of %d samples were taken, refused: %s", n, len(c.series), r.Refusals())
	}
	return nil
}

func (c *Canary) resolve(ctx context.Context, rows []arrival.Row) error {
	var unknown []arrival.Unknown
	for i := range rows {
		if rows[i].Ref == 0 {
			unknown = append(unknown, arrival.Unknown{Key: rows[i].Key, Labels: c.series[i].labels})
		}
	}
	if err := c.o.Writer.Resolve(ctx, unknown); err != nil {
		return err
	}
	for i, next := 0, 0; i < len(rows); i++ {
		if rows[i].Ref != 0 {
			continue
		}
		u := &unknown[next]
		if rows[i].Ref, next = u.Ref, next+1; u.Ref == 0 {
			return fmt.Errorf("the series of pattern %s was refused: %s", c.series[i].pattern.name, u.Refused)
		}
	}
	return nil
}
