package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// HistoryCheckOptions choose what History.Check looks at.
type HistoryCheckOptions struct {
	// Streamed reads chunks rather than samples.
	Streamed bool
	// Whole tells that the compactor was waited for since the last write, so that everything has to be there
	// to the last bucket, and nothing else.
	Whole bool
}

// Check compares what the server has with the book, and returns what contradicts it, at most violationsMax of it.
// What it finds of requests that had no answer is settled. Nobody may write or delete meanwhile, and the
// server was started since they last did, or answered all.
func (h *History) Check(ctx context.Context, r *Reader, opts HistoryCheckOptions) []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note("check, of all %v", opts.Whole)
	c := &historyCheck{check: check{ctx: ctx, reader: r}, h: h, opts: opts}
	for _, step := range []func(){c.deletes, c.samples, c.buckets, c.lists} {
		if step(); len(c.violations) > 0 {
			return c.violations
		}
	}
	if opts.Whole {
		clear(h.touched)
	}
	return nil
}

// historyCheck is one run of History.Check.
type historyCheck struct {
	check
	h    *History
	opts HistoryCheckOptions
	// behind are days that the compactor has something to do with, or may have.
	behind map[int]bool
}

// deletes compares the deletes, and settles those that had no answer.
func (c *historyCheck) deletes() {
	var listed []struct{ Reason, State string }
	if err := c.reader.api(c.ctx, "/api/v1/admin/tsdb/deletes", nil, &listed); err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	states := map[string]string{}
	for _, d := range listed {
		states[d.Reason] = d.State
	}
	for _, d := range c.h.deletes {
		state := states[d.Reason]
		switch {
		case d.state == deletionOver:
			if state == "active" || state == "cleaning" {
				c.report(Returned, "%s of %s is %s again", d.Reason, d.Selector, state)
			}
			continue
		case d.state == deletionSent && state == "":
			d.state = deletionOver
			continue
		case d.state == deletionSent:
			c.h.inForce(d)
		}
		switch state {
		case "active", "cleaning":
			d.undoing = false
		case "cleaned":
			c.h.cleaned(d)
		case "undone":
			if !d.undoing {
				c.report(Invented, "%s of %s is undone, and nobody asked for that", d.Reason, d.Selector)
			}
			c.h.undo(d)
		default:
			c.report(Lost, "%s of %s was acknowledged and is not listed", d.Reason, d.Selector)
		}
		if c.opts.Whole && d.state == deletionInForce {
			c.report(Returned, "%s is %s after all deletes were cleaned", d.Reason, state)
		}
	}
}

// samples reads everything, settles what was pending, and compares.
func (c *historyCheck) samples() {
	const marginDays = 3
	got := map[*pastSeries]map[int64]float64{}
	for _, class := range c.h.classes {
		for f, err := range c.reader.samples(c.ctx, c.h.name, class.ID, startMillis(-marginDays), startMillis(c.h.sent+marginDays), c.opts.Streamed) {
			if err != nil {
				c.report(Unreadable, "%v", err)
				return
			}
			s := c.h.series[f.labels.Get("series")]
			if s == nil || !labels.Equal(s.labels, f.labels) {
				c.report(Invented, "series %s was never sent", f.labels)
				continue
			}
			if got[s] == nil {
				got[s] = map[int64]float64{}
			}
			if _, twice := got[s][f.millis]; twice || f.mark.histogram {
				c.report(Disordered, "%s at %d is there twice, or a histogram", s.labels, f.millis)
			}
			got[s][f.millis] = math.Float64frombits(f.mark.bits)
		}
	}
	for _, s := range c.h.series {
		for day, slots := range s.days {
			for i := range slots {
				c.settle(day, &slots[i], s.millis(day, i), got[s])
			}
		}
	}
	for _, s := range c.h.series {
		c.compare(s, got[s])
	}
}

// settle finds out what became of a sample that had no answer.
func (c *historyCheck) settle(day int, s *slot, at int64, got map[int64]float64) {
	if !s.pending {
		return
	}
	if v, ok := got[at]; ok && v == s.sent {
		*s = slot{value: v, has: true}
		c.h.newest = max(c.h.newest, day)
		return
	}
	s.pending = false
}

// compare compares the samples of a series, whose rule hides those of some days.
func (c *historyCheck) compare(s *pastSeries, got map[int64]float64) {
	first := cut(c.h.newest, c.h.classes[s.class].Raw)
	for _, day := range slices.Sorted(maps.Keys(s.days)) {
		slots := s.days[day]
		lost, at := 0, int64(0)
		for i := range slots {
			t := s.millis(day, i)
			v, ok := got[t]
			delete(got, t)
			sl := &slots[i]
			switch {
			case ok && day < first:
				c.report(Returned, "%s has a sample at %d, which is too old since day %d", s.labels, t, c.h.newest)
			case ok && sl.has && sl.deletedBy != 0:
				c.report(Returned, "%s has %v at %d, which was deleted", s.labels, v, t)
			case ok && !sl.has:
				c.report(Invented, "%s has %v at %d, which was deleted and cleaned, or never sent", s.labels, v, t)
			case ok && v != sl.value:
				c.report(Altered, "%s at %d is %v, acknowledged %v", s.labels, t, v, sl.value)
			case !ok && day >= first && sl.visible():
				lost++
				at = t
			}
		}
		if lost > 0 {
			c.report(Lost, "%s lacks %d samples of day %d, such as the one at %d", s.labels, lost, day, at)
		}
	}
	for t, v := range got {
		c.report(Invented, "%s has %v at %d, which was never sent", s.labels, v, t)
	}
}

// bucketFunctions are what is asked of buckets.
var bucketFunctions = []string{"count_over_time", "sum_over_time", "min_over_time", "max_over_time", "last_over_time"}

// bucket is the values of bucketFunctions. Of one that ends at midnight before are those without the sample of that
// very time, whose first is 0 if there are no others: when the samples of the day had expired before that one was sealed, the
// bucket doesn't learn of it (docs/decisions/016).
type bucket struct {
	now, before [5]float64
	midnight    bool
}

// add adds a sample later than those before.
func (b *bucket) add(v float64, midnight bool) {
	if b.before = b.now; b.now[0] == 0 {
		b.now = [5]float64{0, 0, v, v, v}
	}
	b.now = [5]float64{b.now[0] + 1, b.now[1] + v, min(b.now[2], v), max(b.now[3], v), v}
	b.midnight = midnight
}

// is tells whether the function may have the value.
func (b *bucket) is(function int, v float64) bool {
	return b.now[function] == v || b.midnight && b.before[0] > 0 && b.before[function] == v
}

// buckets compares what queries say of every bucket that rules keep, from rollups where samples are gone.
func (c *historyCheck) buckets() {
	if !c.findBehind() {
		return
	}
	for class := range c.h.classes {
		rule := &c.h.classes[class]
		raw := cut(c.h.newest, rule.Raw)
		for _, level := range []struct {
			millis int64
			keep   int
		}{{FineMillis, rule.Fine}, {CoarseMillis, rule.Coarse}} {
			first := cut(c.h.newest, level.keep)
			want := c.h.bucketsOf(class, level.millis, min(first, raw))
			for day := min(first, raw); day <= c.h.newest; {
				// Buckets of such a day may be made later: until then there is nothing instead.
				lenient := !c.opts.Whole && day < raw && (c.behind[day] || c.behind[day+1])
				end := day + 1
				for ; !lenient && end <= c.h.newest && end-day < queryDaysMax && (c.opts.Whole || end >= raw || !c.behind[end] && !c.behind[end+1]); end++ {
				}
				for _, i := range c.functions() {
					c.function(class, i, level.millis, day, end, lenient, want)
				}
				day = end
			}
		}
	}
}

// functions are the places of those to be asked for: all of them, or the count and one more.
func (c *historyCheck) functions() []int {
	if c.opts.Whole {
		return []int{0, 1, 2, 3, 4}
	}
	return []int{0, 1 + int(c.h.version%4)}
}

// queryDaysMax keeps queries below the 11,000 points that one may ask for.
const queryDaysMax = 30

// findBehind finds the days of which buckets may wait to be made.
func (c *historyCheck) findBehind() bool {
	c.behind = maps.Clone(c.h.touched)
	var status struct {
		Days []struct {
			Day                     string
			Unsealed, Rolled, Dirty bool
		}
	}
	if err := c.reader.api(c.ctx, "/api/v1/status/compactor", nil, &status); err != nil {
		c.report(Unreadable, "%v", err)
		return false
	}
	for _, d := range status.Days {
		if d.Unsealed || !d.Rolled || d.Dirty {
			at, err := time.Parse(time.DateOnly, d.Day)
			if err != nil {
				c.report(Unreadable, "%v", err)
				return false
			}
			day := int(at.UnixMilli()/dayMillis) - historyStartDay
			c.behind[day] = true
			if c.opts.Whole && day >= 0 {
				c.report(Lost, "the compactor has left %s: %+v", d.Day, d)
			}
		}
	}
	return true
}

// bucketsOf computes the buckets of a class from the day on, by series and end.
func (h *History) bucketsOf(class int, length int64, first int) map[string]map[int64]bucket {
	out := map[string]map[int64]bucket{}
	for id, s := range h.series {
		if s.class != class {
			continue
		}
		buckets := map[int64]bucket{}
		for _, day := range slices.Sorted(maps.Keys(s.days)) {
			if day < first {
				continue
			}
			slots := s.days[day]
			for i := range slots {
				if !slots[i].visible() {
					continue
				}
				t, v := s.millis(day, i), slots[i].value
				end := (t + length - 1) / length * length
				b := buckets[end]
				b.add(v, t%dayMillis == 0)
				buckets[end] = b
			}
		}
		out[id] = buckets
	}
	return out
}

// function compares a function over all buckets that end later than day begins, up to where day end does.
func (c *historyCheck) function(class, function int, length int64, day, end int, lenient bool, want map[string]map[int64]bucket) {
	query := fmt.Sprintf("%s(%s[%dms])", bucketFunctions[function], selector(c.h.name, c.h.classes[class].ID), length)
	from, to := startMillis(day)+length, startMillis(end)
	got, err := c.reader.matrix(c.ctx, query, from, to, length)
	if refused := new(apiError); lenient && errors.As(err, &refused) && refused.status == http.StatusUnprocessableEntity {
		return
	}
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	for id, values := range got {
		for t, v := range values {
			if lenient && t == to {
				continue // Of the last bucket the sample at midnight is of the next day, and may be there alone.
			}
			if b, ok := want[id][t]; !ok {
				c.report(Invented, "%s of %s at %d is %v and has no samples", query, id, t, v)
			} else if !b.is(function, v) {
				c.report(Altered, "%s of %s at %d is %v, want %v", query, id, t, v, b.now[function])
			}
		}
	}
	if lenient {
		return
	}
	for id, buckets := range want {
		lost, at := 0, int64(0)
		for t, b := range buckets {
			if _, ok := got[id][t]; !ok && t >= from && t <= to && (!b.midnight || b.before[0] > 0) {
				lost++
				at = t
			}
		}
		if lost > 0 {
			c.report(Lost, "%s of %s lacks %d values of days %d to %d, such as the one at %d", query, id, lost, day, end-1, at)
		}
	}
}

// lists compares what the label APIs list.
func (c *historyCheck) lists() {
	for class := range c.h.classes {
		rule := &c.h.classes[class]
		first := cut(c.h.newest, max(rule.Raw, rule.Fine, rule.Coarse))
		listed, err := c.reader.series(c.ctx, c.h.name, rule.ID, startMillis(0), startMillis(c.h.sent+1))
		if err != nil {
			c.report(Unreadable, "%v", err)
			return
		}
		values, err := c.reader.labelValues(c.ctx, "series", c.h.name, rule.ID, startMillis(0), startMillis(c.h.sent+1))
		if err != nil {
			c.report(Unreadable, "%v", err)
			return
		}
		known := map[string]bool{}
		for _, ls := range listed {
			known[ls.Get("series")] = true
		}
		named := map[string]bool{}
		for _, v := range values {
			named[v] = true
		}
		for id, s := range c.h.series {
			if s.class == class {
				c.listed(s, first, known[id], "the series API")
				c.listed(s, first, named[id], "the values of label series")
			}
			delete(known, id)
			delete(named, id)
		}
		for id := range known {
			c.report(Invented, "the series API lists %s, which was never sent", id)
		}
		for id := range named {
			c.report(Invented, "the values of label series have %s, which was never sent", id)
		}
	}
}

// listed compares whether a series is listed with whether it has anything from a day on.
func (c *historyCheck) listed(s *pastSeries, first int, listed bool, where string) {
	some, midnight := 0, 0
	for day, slots := range s.days {
		for i := range slots {
			if day >= first && slots[i].visible() {
				some++
				if day == first && i == 0 && s.offset == 0 {
					midnight++ // It may have a bucket of the day before alone, which isn't kept.
				}
			}
		}
	}
	switch {
	case !listed && some > midnight && (c.opts.Whole || !c.onlyBehind(s, first)):
		c.report(Unlisted, "%s lacks %s, which has %d samples since day %d", where, s.labels, some, first)
	case listed && some == 0 && c.opts.Whole:
		c.report(Returned, "%s has %s, of which nothing is left since day %d", where, s.labels, first)
	}
}

// onlyBehind tells whether all of the series is of days whose buckets may wait to be made and whose samples are too old.
func (c *historyCheck) onlyBehind(s *pastSeries, first int) bool {
	raw := cut(c.h.newest, c.h.classes[s.class].Raw)
	for day := range s.days {
		if day >= first && (day >= raw || !c.behind[day] && !c.behind[day+1]) {
			return false
		}
	}
	return true
}

// matrix is the answer of a range query that must be exact, by the label series and time.
func (r *Reader) matrix(ctx context.Context, query string, from, to, step int64) (map[string]map[int64]float64, error) {
	var answer struct {
		Result []struct {
			Metric labels.Labels `json:"metric"`
			Values [][2]any      `json:"values"`
		} `json:"result"`
	}
	parameters := timeRange(from, to)
	parameters.Set("query", query)
	parameters.Set("step", seconds(step))
	parameters.Set("resolution", "strict")
	if err := r.api(ctx, "/api/v1/query_range", parameters, &answer); err != nil {
		return nil, fmt.Errorf("query %s from %d to %d: %w", query, from, to, err)
	}
	out := map[string]map[int64]float64{}
	for _, s := range answer.Result {
		values := map[int64]float64{}
		for _, v := range s.Values {
			at, ok := v[0].(float64)
			text, isText := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !ok || !isText || err != nil {
				return nil, fmt.Errorf("query %s: %v is no point", query, v)
			}
			values[int64(math.Round(at*1000))] = value
		}
		out[s.Metric.Get("series")] = values
	}
	return out, nil
}
