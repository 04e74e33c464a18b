package ledger

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Class is some series of a History, and the rule by which they are kept. Raw, Fine and Coarse are days, or
// Forever, of samples and of buckets of FineMillis and CoarseMillis.
type Class struct {
	ID                WriterID
	Raw, Fine, Coarse int
	// Series is how many there are at a time.
	Series int
}

// Forever is how many days are kept by a rule that keeps all.
const Forever = math.MaxInt32

const (
	// FineMillis and CoarseMillis are the lengths of buckets.
	FineMillis   = 300_000
	CoarseMillis = 3_600_000
	// historySlots is how many samples a series may have a day.
	historySlots = 1440
	slotMillis   = dayMillis / historySlots
	// historyStartDay is the first day, counted from 1970: 2024-01-01. All days lie in the past, so
	// that the server counts ages from the newest of them, and a run may last over midnight.
	historyStartDay = 19723
	// briefDays is how long every other series lives.
	briefDays = 2
	// DeletesMax is how many deletes a History can tell apart.
	DeletesMax = 64
)

// History is the book of a workload that goes through weeks of days, one after the other, under rules of retention,
// with late samples, overwritten ones and deletes. It knows what a server has to answer at any moment: samples, buckets of
// what had samples, nothing of what was deleted or is too old.
//
// Times are slots of days. Of each the book has one value, the last, and the deletes that hide it: every delete
// that hides the last one hides those before it too.
//
// Days are counted from the first. A History may be used by several goroutines.
type History struct {
	name    string
	seed    draw
	classes []Class

	mu      sync.Mutex // guards what follows
	series  map[string]*pastSeries
	deletes []*Deletion
	// newest is the newest day that the server has samples of, sent the newest that it may have, -1 for none.
	newest, sent int
	version      uint64
	acked        int
	log          io.Writer
	logErr       error
	// touched are the days that something happened to since the compactor was last waited for.
	touched map[int]bool
}

// pastSeries is the book of one series. It lives from the day first to the day last, both inclusive.
type pastSeries struct {
	labels      labels.Labels
	class       int
	first, last int
	offset      int64 // in its slots, in ms
	days        map[int]*[historySlots]slot
}

// slot is what is known of a series at a time.
type slot struct {
	value, sent  float64
	has, pending bool
	deletedBy    uint64 // a bit for each Deletion
}

// visible tells whether there is a sample.
func (s *slot) visible() bool { return s.has && s.deletedBy == 0 }

// Deletion is a delete of some series between two times.
type Deletion struct {
	// Selector, FromMillis and ToMillis, both inclusive, and Reason, which no other has, are for the request.
	Selector             string
	FromMillis, ToMillis int64
	Reason               string

	bit     uint64
	series  []*pastSeries
	state   deletionState
	undoing bool // somebody asked for it, and no answer came
}

type deletionState int

const (
	deletionSent deletionState = iota
	deletionInForce
	deletionOver // cleaned, undone, or never made
)

// NewHistory returns an empty book. The name tells archives apart and is a label value. Its entries go to log as well, for whoever
// studies a failure.
func NewHistory(name string, seed uint64, classes []Class, log io.Writer) *History {
	return &History{
		name: name, seed: draw(seed).text("history"), classes: classes, series: map[string]*pastSeries{},
		newest: -1, sent: -1, touched: map[int]bool{}, log: log,
	}
}

// Acked is the number of samples acknowledged so far.
func (h *History) Acked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// LogError is the first error of writing to the log.
func (h *History) LogError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logErr
}

func (h *History) note(format string, args ...any) {
	_, err := fmt.Fprintf(h.log, time.Now().UTC().Format(time.RFC3339Nano)+" "+format+"\n", args...)
	h.logErr = cmp.Or(h.logErr, err)
}

// Newest is the newest day that was sent, -1 before the first.
func (h *History) Newest() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent
}

// cut is the first day that is kept for so many days, when the newest is the given one.
func cut(newest, keep int) int { return max(newest+1-keep, 0) }

func startMillis(day int) int64 { return int64(historyStartDay+day) * dayMillis }

// at returns the series of a class that has the number on the day.
func (h *History) at(class, number, day int) *pastSeries {
	c := &h.classes[class]
	first, last := 0, math.MaxInt
	if number%2 == 1 {
		first = day - (day+number/2)%briefDays
		last = first + briefDays - 1
	}
	id := fmt.Sprintf("%s-%02d-%03d", c.ID, number, max(first, 0))
	s := h.series[id]
	if s == nil {
		s = &pastSeries{
			labels: labels.FromStrings(model.MetricNameLabel, fmt.Sprintf("gate_history_%d", number%3),
				LabelGate, h.name, LabelWriter, string(c.ID), "series", id),
			class: class, first: max(first, 0), last: last, days: map[int]*[historySlots]slot{},
		}
		// A third has samples on the bounds of buckets, at midnight too.
		if d := h.seed.text(id); d.below(3) != 0 {
			s.offset = int64(d.at(1).below(slotMillis))
		}
		h.series[id] = s
	}
	return s
}

// cell is a sample to be.
type cell struct {
	series *pastSeries
	day    int
	slot   int
	value  float64
}

// Piece is a request of a History.
type Piece struct{ cells []cell }

// Advance returns samples of all series in a part of a day: slots are 1440 a day. Some are left out, for Late.
func (h *History) Advance(day, from, to int) Piece {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	var p Piece
	for class := range h.classes {
		for number := range h.classes[class].Series {
			s := h.at(class, number, day)
			for i := from; i < to; i++ {
				if d := h.seed.at(uint64(class), uint64(number), uint64(day), uint64(i)); d.below(8) != 0 {
					p.cells = append(p.cells, cell{s, day, i, h.value(number, day, i)})
				}
			}
		}
	}
	return p
}

// Late returns some samples of a day of the past, new ones and such as overwrite others, of the classes
// that still take them. choice decides which. It is empty if there are none.
func (h *History) Late(choice uint64) Piece {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	d := h.seed.at(choice)
	var p Piece
	if h.sent < 1 {
		return p
	}
	day := max(h.sent-1-int(d.at(1).below(5)), 0)
	from, slots := int(d.at(2).below(historySlots)), 1+int(d.at(3).below(90))
	for class := range h.classes {
		// The day behind the one that may be sent meanwhile.
		if day <= cut(h.sent+1, h.classes[class].Raw) {
			continue
		}
		for number := range h.classes[class].Series {
			if d.at(4, uint64(number)).below(3) != 0 {
				continue
			}
			s := h.at(class, number, day)
			for i := from; i < min(from+slots, historySlots); i++ {
				if d.at(5, uint64(number), uint64(i)).below(2) == 0 {
					p.cells = append(p.cells, cell{s, day, i, h.value(number, day, i)})
				}
			}
		}
	}
	return p
}

// value is a number of which sums are exact.
func (h *History) value(number, day, i int) float64 {
	d := h.seed.at(uint64(number), uint64(day), uint64(i), h.version)
	if number%3 == 0 {
		return float64((day*historySlots+i)%700) * 13 // a counter with resets
	}
	return float64(d.below(1<<30)) - (1 << 29)
}

// Empty tells whether there is nothing in it.
func (p *Piece) Empty() bool { return len(p.cells) == 0 }

// request is the piece as a request.
func (p *Piece) request() []Series {
	var out []Series
	for i, c := range p.cells {
		if i == 0 || p.cells[i-1].series != c.series {
			out = append(out, Series{Labels: c.series.labels, Metadata: counterMetadata("history")})
		}
		s := &out[len(out)-1]
		s.Samples = append(s.Samples, Sample{c.millis(), math.Float64bits(c.value)})
	}
	return out
}

func (c *cell) millis() int64 { return c.series.millis(c.day, c.slot) }

func (s *pastSeries) millis(day, slot int) int64 {
	return startMillis(day) + int64(slot)*slotMillis + s.offset
}

// sending notes the piece as pending.
func (h *History) sending(p *Piece) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range p.cells {
		day := c.series.days[c.day]
		if day == nil {
			day = new([historySlots]slot)
			c.series.days[c.day] = day
		}
		day[c.slot].sent, day[c.slot].pending = c.value, true
		h.sent = max(h.sent, c.day)
		h.touched[c.day] = true
	}
}

// acknowledged notes that the piece was taken.
func (h *History) acknowledged(p *Piece) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range p.cells {
		c.series.days[c.day][c.slot] = slot{value: c.value, has: true}
		h.newest = max(h.newest, c.day)
	}
	h.acked += len(p.cells)
	if n := len(p.cells); n > 0 {
		h.note("acknowledged %d samples from %s to %s", n, text(p.cells[0].millis()), text(p.cells[n-1].millis()))
	}
}

// NewDelete draws a delete of some series of a class, between bounds of coarse buckets: of what has no
// samples any more, whole buckets go. It is of days before the newest, so that the newest stays. ok is false when there is none
// to be made.
func (h *History) NewDelete(choice uint64) (d *Deletion, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sent < 2 || len(h.deletes) == DeletesMax {
		return nil, false
	}
	r := h.seed.at(choice, 7)
	class := int(r.at(1).below(uint64(len(h.classes))))
	c := &h.classes[class]
	oldest := cut(h.sent, c.Coarse)
	oldest = max(oldest-1, h.sent-20, 0) // What is gone may be deleted as well.
	days := uint64(h.sent - oldest)
	if days == 0 {
		return nil, false
	}
	day := oldest + int(r.at(2).below(days))
	from := startMillis(day) + int64(r.at(3).below(24))*CoarseMillis
	to := from + int64(1+r.at(4).below(36))*CoarseMillis
	if r.at(5).below(3) == 0 { // whole days
		from, to = startMillis(day)-CoarseMillis, startMillis(day+1)
	}
	d = &Deletion{
		FromMillis: from + 1, ToMillis: min(to, startMillis(h.sent)-1),
		Reason: fmt.Sprintf("delete %d", len(h.deletes)), bit: 1 << len(h.deletes),
	}
	if d.ToMillis != to {
		d.ToMillis = startMillis(h.sent) - CoarseMillis
	}
	if c.Raw == Forever && r.at(6).below(2) == 0 {
		// Where samples stay any bounds will do.
		d.FromMillis += int64(r.at(7).below(CoarseMillis))
		d.ToMillis -= int64(r.at(8).below(CoarseMillis / 2))
	}
	if d.FromMillis > d.ToMillis {
		return nil, false
	}
	var names []string
	for id, s := range h.series {
		if s.class == class && r.text(id).below(3) == 0 {
			d.series = append(d.series, s)
			names = append(names, id)
		}
	}
	if len(names) == 0 {
		return nil, false
	}
	slices.Sort(names)
	d.Selector = fmt.Sprintf("{%s=%q,series=~%q}", LabelGate, h.name, strings.Join(names, "|"))
	h.deletes = append(h.deletes, d)
	h.touch(d)
	h.note("%s of %s from %s to %s", d.Reason, d.Selector, text(d.FromMillis), text(d.ToMillis))
	return d, true
}

func text(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.RFC3339Nano) }

func (h *History) touch(d *Deletion) {
	for day := int(d.FromMillis/dayMillis) - historyStartDay - 1; day <= int(d.ToMillis/dayMillis)-historyStartDay; day++ {
		h.touched[day] = true
	}
}

// Deleted notes that a delete was acknowledged; found tells that it was of something.
func (h *History) Deleted(d *Deletion, found bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !found {
		d.state = deletionOver
		return
	}
	h.inForce(d)
}

func (h *History) inForce(d *Deletion) {
	h.note("%s in force", d.Reason)
	d.state = deletionInForce
	d.each(func(s *slot) {
		if s.has {
			s.deletedBy |= d.bit
		}
	})
}

// each calls f for all slots that the delete is about.
func (d *Deletion) each(f func(s *slot)) {
	for _, s := range d.series {
		for day, slots := range s.days {
			if startMillis(day) > d.ToMillis || startMillis(day+1) <= d.FromMillis {
				continue
			}
			for i := range slots {
				if t := s.millis(day, i); t >= d.FromMillis && t <= d.ToMillis {
					f(&slots[i])
				}
			}
		}
	}
}

// InForce lists the deletes that hide something.
func (h *History) InForce() (out []*Deletion) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.deletes {
		if d.state == deletionInForce {
			out = append(out, d)
		}
	}
	return out
}

// Undoing notes that somebody asks for the end of a delete.
func (h *History) Undoing(d *Deletion) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.undoing = true
	h.note("%s to be undone", d.Reason)
	h.touch(d)
}

// Undone notes that a delete was taken back, or that that was refused.
func (h *History) Undone(d *Deletion, done bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.undoing = false; done {
		h.undo(d)
	}
}

func (h *History) undo(d *Deletion) {
	h.note("%s undone", d.Reason)
	d.state = deletionOver
	d.each(func(s *slot) { s.deletedBy &^= d.bit })
	h.touch(d)
}

// cleaned forgets what a delete hid.
func (h *History) cleaned(d *Deletion) {
	h.note("%s cleaned", d.Reason)
	d.state = deletionOver
	d.each(func(s *slot) {
		if s.deletedBy&d.bit != 0 {
			*s = slot{sent: s.sent, pending: s.pending}
		}
	})
	h.touch(d)
}
