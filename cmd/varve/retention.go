package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"varve/api"
	"varve/archive"
	"varve/archive/format"
	"varve/compactor"
	"varve/config"
)

// retention turns the rules of the configuration into those of the archive.
func retention(c *config.Config) (archive.Retention, error) {
	r := archive.Retention{BytesMax: int64(c.RetentionSize)}
	for i := range c.Retention {
		rule := &c.Retention[i]
		matchers, err := rule.Matchers()
		if err != nil {
			return r, fmt.Errorf("retention: %w", err)
		}
		out := archive.RetentionRule{Text: rule.Series(), Matchers: matchers}
		for _, keep := range rule.Keeps(c.Resolutions()) {
			d := time.Duration(keep)
			if keep == config.Forever {
				d = archive.Forever
			}
			out.Keep = append(out.Keep, d)
		}
		r.Rules = append(r.Rules, out)
	}
	return r, nil
}

// levelText names samples, or the buckets of a resolution.
func levelText(resolution time.Duration) string {
	if resolution == 0 {
		return "raw"
	}
	return config.Duration(resolution).String()
}

// keepText is how long something is kept.
func keepText(keep time.Duration) string {
	if keep == archive.Forever {
		return config.Forever.String()
	}
	return config.Keep(keep).String()
}

// dateUnless is the day, empty if nothing was cut off.
func dateUnless(d format.Day) string {
	if d == format.MinDay {
		return ""
	}
	return archive.Date(d)
}

// RetentionStatus implements api.Compactor.
func (c *compacting) RetentionStatus(ctx context.Context) (api.RetentionStatus, error) {
	return retentionStatus(ctx, c.archive, compactor.Policy{DropShareMax: c.dropShareMax})
}

func retentionStatus(ctx context.Context, a *archive.Archive, p compactor.Policy) (api.RetentionStatus, error) {
	kept, err := a.Retention()
	if err != nil {
		return api.RetentionStatus{}, err
	}
	days, err := a.Days()
	if err != nil {
		return api.RetentionStatus{}, err
	}
	expiring, err := a.Expiring(ctx)
	if err != nil {
		return api.RetentionStatus{}, err
	}
	out := api.RetentionStatus{
		Today: dateUnless(kept.Today), DiskBytes: kept.DiskBytes, SizeLimit: kept.BytesMax, Dropping: kept.Dropping,
		Rules: []api.RetentionRule{}, Levels: []api.RetentionLevel{},
	}
	for _, l := range kept.Levels {
		out.Levels = append(out.Levels, api.RetentionLevel{Level: levelText(l.Resolution), Floor: dateUnless(l.Floor)})
	}
	for _, rule := range kept.Rules {
		r := api.RetentionRule{Match: rule.Text}
		for i, keep := range rule.Keep {
			r.Keep = append(r.Keep, api.RetentionKeep{Level: out.Levels[i].Level, For: keepText(keep), Before: dateUnless(rule.Cutoffs[i])})
		}
		out.Rules = append(out.Rules, r)
	}
	for _, e := range expiring {
		k := &out.Rules[e.Rule].Keep[e.Level]
		k.Series, k.Samples, k.Bytes = e.Series, e.Samples, e.Bytes
	}
	e, due := compactor.PlanExpiry(compactor.Inventory{Days: days, Retention: kept}, p)
	if e.Kept != "" {
		out.Kept = fmt.Sprintf("raw from %s on: %s", archive.Date(e.KeptDay), e.Kept)
	}
	if due {
		out.Next = &api.RetentionPass{Why: e.Why, Trims: []string{}, Bytes: e.Bytes, TotalBytes: e.Total, Waits: e.Waits}
		for _, d := range e.Trims {
			out.Next.Trims = append(out.Next.Trims, archive.Date(d.Day))
		}
		for i, floor := range e.Floors {
			out.Next.Floors = append(out.Next.Floors, api.RetentionLevel{Level: out.Levels[i].Level, Floor: dateUnless(floor)})
		}
	}
	return out, nil
}

// retentionText is all that is kept, on a line.
func retentionText(c *config.Config) string {
	var parts []string
	for i := range c.Retention {
		parts = append(parts, c.Retention[i].String())
	}
	if c.RetentionSize > 0 {
		parts = append(parts, c.RetentionSize.String())
	}
	if len(parts) == 0 {
		return "unlimited"
	}
	return strings.Join(parts, "; ")
}
