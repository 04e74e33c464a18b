package archive

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/rocks"
)

// Forever is how long is kept what never expires.
const Forever time.Duration = math.MaxInt64

// Retention says how long samples and buckets are kept. The zero value keeps everything.
type Retention struct {
	// Rules are asked in order: the first that a series matches is the one for it. Without one
	// it is kept forever.
	Rules []RetentionRule
	// BytesMax is how much the archive may take on disk, 0 for any: beyond it the oldest samples go.
	BytesMax int64
}

// RetentionRule says how long some series are kept.
type RetentionRule struct {
	// Text is the rule as people wrote it.
	Text string
	// Matchers are lists of which a series has to match one. Without any, every series does.
	Matchers [][]*labels.Matcher
	// Keep is how long samples are kept, and then, for each of Options.Resolutions, buckets: whole days,
	// or Forever.
	Keep []time.Duration
}

// rulesMax bounds the rules to what a byte can tell apart, with one for all others and one for not known.
const rulesMax = 250

// rawDaysMin is how long samples must be kept of which buckets are kept longer: a day is rolled up when
// the day behind it is sealed.
const rawDaysMin = 2

const dayLength = format.DayMillis * time.Millisecond

// check tells what is wrong with a policy for that many resolutions.
func (r *Retention) check(resolutions int) error {
	if len(r.Rules) > rulesMax {
		return fmt.Errorf("retention: %d rules, at most %d are possible", len(r.Rules), rulesMax)
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		if len(rule.Keep) != resolutions+1 {
			return fmt.Errorf("retention rule %d is about %d levels, there are %d", i+1, len(rule.Keep), resolutions+1)
		}
		for level, keep := range rule.Keep {
			switch {
			case keep != Forever && (keep < dayLength || keep%dayLength != 0):
				return fmt.Errorf("retention rule %d: %s are no whole days", i+1, keep)
			case level > 0 && keep > rule.Keep[0] && rule.Keep[0] < rawDaysMin*dayLength:
				return fmt.Errorf("retention rule %d: samples are kept for less than %d days, so that they might be gone before they are rolled up", i+1, rawDaysMin)
			}
		}
	}
	return nil
}

// retention is what of the archive is kept: the rules, and the floors below which everything has
// expired. It is safe for use by several goroutines.
//
// There are two bounds. A cutoff is what a rule says now: data before it is hidden at once, and comes back if the rule
// changes. A floor is what was carried out: it is on disk before anything is dropped, and never
// goes down. Both are whole days (UTC).
type retention struct {
	resolutions []uint32
	cat         *catalogue
	// newest is the newest day that has samples; MinDay before there are any.
	newest atomic.Int32

	// mu is held while one of these is changed.
	mu     sync.Mutex
	floors atomic.Pointer[format.Floors]
	rules  atomic.Pointer[ruleTable]
	// last are the cutoffs that were asked for last.
	last atomic.Pointer[cutoffs]
}

// load reads the floors.
func (r *retention) load(db *rocks.DB, cat *catalogue, resolutions []uint32, rules Retention) error {
	r.cat, r.resolutions = cat, resolutions
	r.newest.Store(int32(format.MinDay))
	f := &format.Floors{Series: format.MinDay}
	value, ok, err := db.Get(family(format.FamilyMeta), []byte(format.MetaFloors), nil)
	if err != nil {
		return err
	}
	if ok {
		if err := f.Parse(value); err != nil {
			return fmt.Errorf("floors of retention: %w", err)
		}
	}
	r.floors.Store(f)
	it := db.NewIterator(family(format.FamilyActive), rocks.IterOptions{})
	defer it.Close()
	if it.SeekToLast(); it.Valid() {
		day, _, err := format.ParseActiveKey(it.Key())
		if err != nil {
			return err
		}
		r.saw(day)
	}
	if err := it.Err(); err != nil {
		return err
	}
	return r.set(rules)
}

// set puts rules in force.
func (r *retention) set(rules Retention) error {
	if err := rules.check(len(r.resolutions)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules.Store(newRuleTable(rules, len(r.resolutions)))
	return nil
}

// saw notes that the day has samples.
func (r *retention) saw(day format.Day) {
	for {
		newest := r.newest.Load()
		if int32(day) <= newest || r.newest.CompareAndSwap(newest, int32(day)) {
			return
		}
	}
}

// CheckRetention returns the error that SetRetention would.
func (a *Archive) CheckRetention(r Retention) error { return r.check(len(a.rolls.resolutions)) }

// SetRetention changes how long data is kept. Queries that begin after it returns see no more and no less;
// what was dropped before does not come back.
func (a *Archive) SetRetention(r Retention) error { return a.kept.set(r) }

// today is the day by which ages are counted, MinDay before there are samples. It is at most the day behind the newest one that has samples,
// so that a clock that is ahead expires nothing.
func (r *retention) today(now time.Time) format.Day {
	if format.Day(r.newest.Load()) == format.MinDay {
		return format.MinDay
	}
	return min(format.DayOf(format.ClampTime(now.UnixMilli())), format.Day(r.newest.Load())+1)
}

// at returns the cutoffs of a moment.
func (r *retention) at(now time.Time) *cutoffs {
	today, floors, rules := r.today(now), r.floors.Load(), r.rules.Load()
	if c := r.last.Load(); c != nil && c.today == today && c.floors == floors && c.table == rules {
		return c
	}
	c := newCutoffs(today, floors, rules, r.resolutions)
	r.last.Store(c)
	return c
}

// carriedOut are the floors as cutoffs: all that is there is seen.
func (r *retention) carriedOut() *cutoffs {
	return newCutoffs(format.MinDay, r.floors.Load(), newRuleTable(Retention{}, len(r.resolutions)), r.resolutions)
}

// cutoffs are, at a moment, the first days that are kept: by rule and level, which is 0 for samples and then
// counts the resolutions. It doesn't change.
type cutoffs struct {
	today  format.Day
	floors *format.Floors
	table  *ruleTable
	days   [][]format.Day // by rule, and level
	// series are, by rule, the first days of which anything is kept.
	series []format.Day
	// rawFirst and rawLast are the lowest and the highest of the first days of samples, seriesFirst and seriesLast
	// of series.
	rawFirst, rawLast, seriesFirst, seriesLast format.Day
}

func newCutoffs(today format.Day, floors *format.Floors, table *ruleTable, resolutions []uint32) *cutoffs {
	c := &cutoffs{today: today, floors: floors, table: table}
	for _, rule := range table.rules {
		days := make([]format.Day, len(resolutions)+1)
		for level, keep := range rule.Keep {
			resolution := uint32(0)
			if level > 0 {
				resolution = resolutions[level-1]
			}
			days[level] = floors.Of(resolution)
			if keep != Forever {
				days[level] = max(days[level], cutoffDay(today, keep))
			}
		}
		c.days, c.series = append(c.days, days), append(c.series, slices.Min(days))
	}
	c.rawFirst, c.rawLast = c.days[0][0], c.days[0][0]
	for _, days := range c.days {
		c.rawFirst, c.rawLast = min(c.rawFirst, days[0]), max(c.rawLast, days[0])
	}
	c.seriesFirst, c.seriesLast = slices.Min(c.series), slices.Max(c.series)
	return c
}

// cutoffDay is the first day of which the end is not older than keep when today begins.
func cutoffDay(today format.Day, keep time.Duration) format.Day {
	days := int64(keep / dayLength)
	if int64(today)-days < int64(format.MinDay) {
		return format.MinDay
	}
	return today - format.Day(days)
}

// level is the place of a resolution among the days of a rule, -1 if it isn't in use.
func (v *view) level(resolution uint32) int {
	i := slices.Index(v.a.rolls.resolutions, resolution)
	if i < 0 {
		return -1
	}
	return i + 1
}

// sinceMillis is the first time of the day, MinInt64 if nothing was cut off.
func sinceMillis(day format.Day) int64 {
	if day == format.MinDay {
		return math.MinInt64
	}
	return day.StartMillis()
}

// rule returns the place of the series' rule.
func (c *cutoffs) rule(ref format.Ref) int {
	if len(c.days) == 1 {
		return 0
	}
	return c.table.known(ref)
}

// raw is the first day on which samples of the series are seen. Its rule must be known.
func (c *cutoffs) raw(ref format.Ref) format.Day { return c.days[c.rule(ref)][0] }

// hidden returns those of the series whose rules are known of which nothing on the day is kept.
func (c *cutoffs) hidden(day format.Day) *roaring.Bitmap {
	return c.table.union(func(rule int) bool { return day < c.series[rule] })
}

// split returns those of the series, whose rules are known, of which samples on the day are kept, and those of which
// only buckets are. Both may be changed.
func (c *cutoffs) split(day format.Day, series *roaring.Bitmap) (sampled, rolled *roaring.Bitmap) {
	if len(c.days) == 1 {
		if day < c.days[0][0] {
			return roaring.New(), series
		}
		return series, roaring.New()
	}
	sampled = c.table.union(func(rule int) bool { return day >= c.days[rule][0] })
	rolled = c.table.union(func(rule int) bool { return day >= c.series[rule] && day < c.days[rule][0] })
	sampled.And(series)
	rolled.And(series)
	return sampled, rolled
}

// bySince returns the series whose rules are known by the first day of which anything of them is kept.
func (c *cutoffs) bySince() map[format.Day]*roaring.Bitmap {
	out := map[format.Day]*roaring.Bitmap{}
	for _, since := range c.series {
		if out[since] == nil {
			out[since] = c.table.union(func(rule int) bool { return c.series[rule] == since })
		}
	}
	return out
}

// learn finds the rules of series.
func (v *view) learn(refs *roaring.Bitmap) error { return v.kept.learn(v.a.cat, refs) }

func (c *cutoffs) learn(cat *catalogue, refs *roaring.Bitmap) error {
	if len(c.days) == 1 {
		return nil
	}
	return c.table.learn(cat, refs)
}

// ruleTable are the rules in force, and which series each is for, as far as anybody asked: a byte a
// series, and a set a rule. Safe for use by several goroutines.
type ruleTable struct {
	policy Retention
	// rules are those of the policy up to the first for every series, or one that keeps the rest forever.
	rules []RetentionRule

	mu    sync.RWMutex
	pages map[format.Ref]*[pageSize]uint8 // 1 more than the place of the rule, 0 if it isn't known
	sets  []*roaring.Bitmap               // by rule
	all   *roaring.Bitmap
}

func newRuleTable(policy Retention, resolutions int) *ruleTable {
	t := &ruleTable{policy: policy, pages: map[format.Ref]*[pageSize]uint8{}, all: roaring.New()}
	for _, rule := range policy.Rules {
		if t.rules = append(t.rules, rule); len(rule.Matchers) == 0 {
			break
		}
	}
	if n := len(t.rules); n == 0 || len(t.rules[n-1].Matchers) > 0 {
		rest := RetentionRule{Keep: make([]time.Duration, resolutions+1)}
		for i := range rest.Keep {
			rest.Keep[i] = Forever
		}
		t.rules = append(t.rules, rest)
	}
	for range t.rules {
		t.sets = append(t.sets, roaring.New())
	}
	return t
}

// match returns the place of the first rule that the labels match.
func (t *ruleTable) match(ls labels.Labels) int {
	for i := range t.rules {
		lists := t.rules[i].Matchers
		if len(lists) == 0 || slices.ContainsFunc(lists, func(ms []*labels.Matcher) bool { return matches(ls, ms) }) {
			return i
		}
	}
	return len(t.rules) - 1
}

func matches(ls labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// known is the place of the series' rule, which was learnt before. A series that wasn't has the last one.
func (t *ruleTable) known(ref format.Ref) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	page := t.pages[ref&^(pageSize-1)]
	if page == nil || page[ref%pageSize] == 0 {
		return len(t.rules) - 1
	}
	return int(page[ref%pageSize]) - 1
}

// learn finds the rules of those series of which they aren't known.
func (t *ruleTable) learn(cat *catalogue, refs *roaring.Bitmap) error {
	if len(t.rules) == 1 {
		return nil
	}
	t.mu.RLock()
	unknown := roaring.AndNot(refs, t.all)
	t.mu.RUnlock()
	for some := range slices.Chunk(refsOf(unknown), lookBatch) {
		sets, err := cat.labelsOf(some)
		if err != nil {
			return err
		}
		places := make([]int, len(some))
		for i, ls := range sets {
			places[i] = t.match(ls)
		}
		t.mu.Lock()
		for i, ref := range some {
			t.put(ref, places[i])
		}
		t.mu.Unlock()
	}
	return nil
}

// put notes the rule of a series. Called with mu held.
func (t *ruleTable) put(ref format.Ref, place int) {
	first := ref &^ (pageSize - 1)
	page := t.pages[first]
	if page == nil {
		page = new([pageSize]uint8)
		t.pages[first] = page
	}
	page[ref-first] = uint8(place) + 1
	t.sets[place].Add(uint32(ref))
	t.all.Add(uint32(ref))
}

// forget forgets the rules of series that are gone.
func (t *ruleTable) forget(gone *roaring.Bitmap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, set := range t.sets {
		set.AndNot(gone)
	}
	t.all.AndNot(gone)
	eachPage(gone, func(first format.Ref) {
		page := t.pages[first]
		if page == nil {
			return
		}
		for i := range page {
			if gone.Contains(uint32(first) + uint32(i)) {
				page[i] = 0
			}
		}
		if *page == [pageSize]uint8{} {
			delete(t.pages, first)
		}
	})
}

// union returns the series of some rules as far as they are known.
func (t *ruleTable) union(of func(rule int) bool) *roaring.Bitmap {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := roaring.New()
	for i, set := range t.sets {
		if of(i) {
			out.Or(set)
		}
	}
	return out
}
