package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"varve/api"
	"varve/archive"
	"varve/archive/format"
	"varve/compactor"
)

// deleting is the archive's deletes as the API wants them.
type deleting struct {
	*compacting
	// grace is how long a delete that is made now can be undone.
	grace func() time.Duration
}

// Delete implements api.Deletes.
func (d deleting) Delete(ctx context.Context, r api.DeleteRequest) (id string, err error) {
	made, ok, err := d.archive.Delete(ctx, archive.DeleteRequest{
		Matchers: r.Matchers, Selectors: r.Selectors, MinMillis: r.MinMillis, MaxMillis: r.MaxMillis,
		Grace: d.grace(), Author: r.Author, Reason: r.Reason,
	})
	if err != nil || !ok {
		return "", err
	}
	return made.ID.String(), nil
}

// Deletes implements api.Deletes.
func (d deleting) Deletes() ([]api.Delete, error) {
	all, err := d.archive.Deletes()
	if err != nil {
		return nil, err
	}
	return deleteAnswers(all), nil
}

// Undelete implements api.Deletes.
func (d deleting) Undelete(text string) (api.Delete, error) {
	id, err := deleteID(text)
	if err != nil {
		return api.Delete{}, err
	}
	undone, err := d.archive.Undelete(id)
	switch {
	case errors.Is(err, archive.ErrNoDelete):
		err = fmt.Errorf("%w: %s", api.ErrNoDelete, text)
	case errors.Is(err, archive.ErrDeleteEnded):
		err = fmt.Errorf("%w%s", api.ErrDeleteEnded, strings.TrimPrefix(err.Error(), archive.ErrDeleteEnded.Error()))
	}
	return deleteAnswer(&undone), err
}

func deleteID(text string) (format.TombstoneID, error) {
	id, err := format.ParseTombstoneText(text)
	if err != nil {
		return id, fmt.Errorf("%w: %w", api.ErrNoDelete, err)
	}
	return id, nil
}

// Clean implements api.Deletes.
func (d deleting) Clean(ctx context.Context, texts []string) ([]api.Delete, error) {
	if err := d.archive.StartError(); err != nil {
		return nil, err
	}
	wanted := map[format.TombstoneID]bool{}
	for _, text := range texts {
		id, err := deleteID(text)
		if err != nil {
			return nil, err
		}
		wanted[id] = true
	}
	var ids []format.TombstoneID
	for _, live := range d.archive.LiveDeletes() {
		if len(texts) == 0 || wanted[live.ID] {
			ids = append(ids, live.ID)
		}
	}
	if len(ids) > 0 {
		clean := func(life context.Context) (compactor.Report, error) { return d.compactor.Clean(life, ids) }
		if _, err := d.ask(ctx, d.cleans, clean); err != nil {
			return nil, err
		}
	}
	all, err := d.archive.Deletes()
	if err != nil {
		return nil, err
	}
	receipts := make([]archive.Delete, 0, len(wanted))
	for _, receipt := range all {
		if wanted[receipt.ID] {
			receipts = append(receipts, receipt)
			delete(wanted, receipt.ID)
		}
	}
	for id := range wanted {
		return nil, fmt.Errorf("%w: %s", api.ErrNoDelete, id)
	}
	return deleteAnswers(receipts), nil
}

func deleteAnswers(all []archive.Delete) []api.Delete {
	out := make([]api.Delete, 0, len(all))
	for i := range all {
		out = append(out, deleteAnswer(&all[i]))
	}
	return out
}

func deleteAnswer(d *archive.Delete) api.Delete {
	out := api.Delete{
		ID: d.ID.String(), State: d.State.String(), Created: d.Created.UTC(), UndoUntil: d.Until.UTC(), Match: d.Selectors,
		Start: time.UnixMilli(d.FromMillis).UTC(), End: time.UnixMilli(d.ToMillis).UTC(), Author: d.Author, Reason: d.Reason,
		Series: d.Series, Days: d.Days, FreedSamples: d.Samples, FreedExemplars: d.Exemplars, FreedBytes: d.Bytes, FreedBuckets: d.Buckets,
	}
	if !d.Ended.IsZero() {
		ended := d.Ended.UTC()
		out.Ended = &ended
	}
	return out
}
