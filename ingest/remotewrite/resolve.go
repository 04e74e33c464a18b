package remotewrite

import (
	"context"
	"errors"
	"fmt"

	"varve/arrival"
)

// resolve gives every row that will be written its ref, counts those that will not
// be, and adds the metadata of the others. It returns errGuess where walk1 guessed
// wrong; nothing is created then.
func (q *request) resolve(ctx context.Context) error {
	if q.sink.Lookup(q.batch.Rows) > 0 {
		if err := q.collectUnknown(); err != nil {
			return err
		}
		if err := q.resolveUnknown(ctx); err != nil {
			return err
		}
		q.countRefused()
	}
	return q.addFamilies()
}

// collectUnknown parses the labels of the rows without a ref.
func (q *request) collectUnknown() error {
	q.resolving = true
	for i := range q.batch.Rows {
		row := &q.batch.Rows[i]
		if row.Ref != 0 {
			continue
		}
		s := &q.series[i]
		if err := q.parseLabels(s); err != nil {
			return err
		}
		ls, err := q.sets.Series()
		if err != nil {
			s.refused = arrival.ReasonInvalidLabels
			q.report.example(err)
			continue
		}
		if err := q.charge(unknownBytes + int(ls.ByteSize())); err != nil {
			return err
		}
		q.unknown = append(roomy(q.unknown), arrival.Unknown{Key: row.Key, Labels: ls})
		q.unknownRows = append(q.unknownRows, uint32(i))
	}
	return nil
}

// parseLabels adds the pairs of a series to q.sets.
func (q *request) parseLabels(s *series) error {
	if q.proto == version2 {
		return q.parseLabels2(s)
	}
	err := q.parseLabels1(q.labelBytes(s))
	if errors.Is(err, errGuess) && !s.guessed {
		return errMalformed
	}
	return err
}

func (q *request) resolveUnknown(ctx context.Context) error {
	if len(q.unknown) == 0 {
		return nil
	}
	if err := q.sink.Resolve(ctx, q.unknown); err != nil {
		return fmt.Errorf("resolve series: %w", err)
	}
	for i := range q.unknown {
		u := &q.unknown[i]
		at := q.unknownRows[i]
		q.batch.Rows[at].Ref = u.Ref
		if u.Ref == 0 {
			q.series[at].refused = u.Refused
		}
	}
	return nil
}

// countRefused counts what the refused rows hold.
func (q *request) countRefused() {
	for i := range q.series {
		if q.batch.Rows[i].Ref == 0 {
			q.report.rejected[q.series[i].refused] += int(q.batch.Rows[i].Count)
		}
	}
	for _, h := range q.batch.Histograms {
		if q.batch.Rows[h.Row].Ref == 0 {
			q.report.rejected[q.series[h.Row].refused]++
		}
	}
	for _, e := range q.batch.Exemplars {
		if q.batch.Rows[e.Row].Ref == 0 {
			q.report.rejected[q.series[e.Row].refused]++
		}
	}
}
