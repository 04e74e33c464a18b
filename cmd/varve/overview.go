package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/api"
	"varve/archive"
	"varve/archive/format"
)

// overview shows the archive as the page wants it.
type overview struct {
	archive     *archive.Archive
	resolutions []time.Duration
	faults      *faultLog
	// hasData is set once there is something that the server doesn't keep of itself: it need not be looked for again.
	hasData atomic.Bool
}

func (s *server) newOverview(a *archive.Archive) *overview {
	return &overview{archive: a, resolutions: resolutions(s.o.config), faults: &s.faults}
}

// HasData implements api.Overview.
func (o *overview) HasData(ctx context.Context) (bool, error) {
	if o.hasData.Load() {
		return true, nil
	}
	found, err := o.archive.Others(ctx, labels.MustNewMatcher(labels.MatchNotEqual, model.JobLabel, selfScrapeJob))
	if found {
		o.hasData.Store(true)
	}
	return found, err
}

// Resolutions implements api.Overview.
func (o *overview) Resolutions() []time.Duration { return o.resolutions }

// ArchiveStatus implements api.Overview.
func (o *overview) ArchiveStatus(context.Context) (api.ArchiveStatus, error) {
	view, err := o.archive.Overview()
	if err != nil {
		return api.ArchiveStatus{}, err
	}
	s := api.ArchiveStatus{
		DiskBytes: view.DiskBytes, OtherBytes: view.OtherBytes, FreeBytes: view.FreeBytes, Series: view.Series, Families: []api.FamilyBytes{},
		Resolutions: []api.ResolutionBytes{}, Integrity: o.faults.integrity(),
	}
	s.ReadOnly, _ = o.archive.ReadOnly()
	for _, f := range view.Families {
		s.Families = append(s.Families, api.FamilyBytes{Name: f.Name, Bytes: f.Bytes})
	}
	for i := range view.Levels {
		l := &view.Levels[i]
		r := api.ResolutionBytes{Resolution: levelText(l.Resolution), Days: l.Days, Samples: l.Samples, Bytes: l.Bytes + l.ClockBytes}
		if l.Days > 0 {
			r.Oldest, r.Newest = &l.Oldest, &l.Newest
		}
		s.Resolutions = append(s.Resolutions, r)
		if l.Resolution == 0 {
			s.Samples, s.BytesPerSample = l.Samples, per(r.Bytes, l.Samples)
		}
	}
	return s, nil
}

// per is bytes a sample, 0 without samples.
func per(bytes, samples uint64) float64 {
	if samples == 0 {
		return 0
	}
	return float64(bytes) / float64(samples)
}

// Days implements api.Overview.
func (o *overview) Days(_ context.Context, r api.DaysRequest) (api.DayList, error) {
	first, last := format.DayOf(format.ClampTime(r.Start.UnixMilli())), format.DayOf(format.ClampTime(r.End.UnixMilli()))
	days, left, err := o.archive.DayOverviews(first, last, r.Limit)
	if err != nil {
		return api.DayList{}, err
	}
	list := api.DayList{Days: []api.Day{}, Left: left}
	today := format.DayOf(time.Now().UnixMilli())
	for i := range days {
		d := &days[i]
		day := api.Day{
			Day: archive.Date(d.Day), State: dayState(d, today), Samples: d.Samples, Bytes: d.Bytes, BytesPerSample: per(d.Bytes, d.Samples),
			PendingBytes: d.RunBytes, Held: d.Held, Owed: d.Owed, Rollups: []api.DayRollup{},
		}
		if !d.Sealed.IsZero() {
			sealed := d.Sealed.UTC()
			day.Sealed = &sealed
		}
		for _, r := range d.Rolls {
			day.Rollups = append(day.Rollups, api.DayRollup{Resolution: levelText(r.Resolution), State: rollState(&r), Buckets: r.Buckets, Bytes: r.Bytes})
		}
		list.Days = append(list.Days, day)
	}
	return list, nil
}

func dayState(d *archive.DayOverview, today format.Day) string {
	switch {
	case d.Expired:
		return "expired"
	case d.Folding:
		return "sealing"
	case d.Runs && !d.Sealed.IsZero():
		return "late"
	case !d.Sealed.IsZero():
		return "sealed"
	case d.Day >= today:
		return "open"
	}
	return "waiting"
}

func rollState(r *archive.RolledStatus) string {
	switch {
	case !r.Begun:
		return "waiting"
	case r.Rolling:
		return "rolling"
	case r.Dirty:
		return "dirty"
	}
	return "rolled"
}

// Cardinality implements api.Overview.
func (o *overview) Cardinality(ctx context.Context, r api.CardinalityRequest) (api.Cardinality, error) {
	c, err := o.archive.Cardinality(ctx, archive.CardinalityRequest{
		Label: r.Label, Matchers: r.Matchers, Days: r.Days, BySeries: r.BySeries, Limit: r.Limit,
	})
	if err != nil {
		return api.Cardinality{}, err
	}
	out := api.Cardinality{Label: r.Label, Series: c.Series, Bytes: c.Bytes, Days: r.Days, Left: c.Left}
	values, names := []api.ValueCardinality{}, []api.LabelCardinality{}
	for _, e := range c.Entries {
		if r.Label != "" {
			values = append(values, api.ValueCardinality{Value: e.Name, Series: e.Series, Bytes: e.Bytes})
		} else {
			names = append(names, api.LabelCardinality{Label: e.Name, Values: e.Values, Series: e.Series, Bytes: e.Bytes})
		}
	}
	if r.Label != "" {
		out.Values = &values
	} else {
		out.Labels = &names
	}
	return out, nil
}

// readStatistics counts what the archive reads under a context.
func readStatistics(ctx context.Context) (context.Context, func() api.ReadStatistics) {
	ctx, read := archive.WithReadStatistics(ctx)
	return ctx, func() api.ReadStatistics {
		s := read()
		return api.ReadStatistics{
			Series: s.Series, Samples: s.Samples, Chunks: s.Chunks, Bytes: s.Bytes,
			FindSeconds: s.Find.Seconds(), LoadSeconds: s.Load.Seconds(), DecodeSeconds: s.Decode.Seconds(),
		}
	}
}
