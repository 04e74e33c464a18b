package ingest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// newThinner returns the thinner of an input and reads its notes. With thinning off it
// is that of the notes, which still has to write what it took, or nil if there is none.
func newThinner(d *Door, o Thin, notes Notes) (*thinner, error) {
	t := &thinner{
		name: d.name, sink: d.sink, notes: notes, m: d.m, now: d.now, futureMax: d.futureMax,
		interval: o.Interval.Milliseconds(), ttl: o.TTL.Milliseconds(), delay: o.Delay, remembered: o.Remembered, seriesMax: o.SeriesMax,
		byKey: make(map[arrival.Key]*thinSeries), byRef: make(map[storage.SeriesRef]*thinSeries), group: 1,
	}
	if t.delay <= 0 {
		t.delay = defaultThinDelay
	}
	orDefault(&t.ttl, 2*t.interval)
	orDefault(&t.remembered, defaultThinRemembered)
	orDefault(&t.seriesMax, defaultThinSeriesMax)
	interval, ttl, closed, found, err := t.readState()
	if err != nil {
		return nil, err
	}
	if !o.on() {
		if !found {
			return nil, nil
		}
		t.interval, t.ttl, t.leaving = interval, ttl, true
	}
	// A clock that went back meanwhile: see reopen.
	again := closed > d.now().UnixMilli()
	if !found || again {
		closed = d.now().Add(-t.delay).UnixMilli()
	}
	t.closed = t.floor(closed)
	if err := t.readSeries(); err != nil {
		return nil, err
	}
	if found && !again {
		return t, nil
	}
	// Notes of series are never without that of the state: whoever turns thinning off
	// must find out how the samples were to be thinned.
	return t, notes.SaveNotes(context.Background(), []Note{{Name: t.stateName(), Value: t.appendState(nil, t.closed)}}, false)
}

func (t *thinner) stateName() string { return t.name + "/thinning" }

const thinNotes = "/thin/"

func (t *thinner) noteName(key arrival.Key) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], key.Hi)
	binary.BigEndian.PutUint64(raw[8:], key.Lo)
	// Room for the longest name of an input.
	var name [192]byte
	return string(hex.AppendEncode(append(append(name[:0], t.name...), thinNotes...), raw[:]))
}

// appendState appends the note of the thinner: the version, interval, ttl and the last
// tick that is closed, in milliseconds.
func (t *thinner) appendState(dst []byte, closed int64) []byte {
	dst = binary.AppendVarint(append(dst, noteVersion), t.interval)
	return binary.AppendVarint(binary.AppendVarint(dst, t.ttl), closed)
}

func (t *thinner) readState() (interval, ttl, closed int64, found bool, err error) {
	err = t.notes.EachNote(t.stateName(), func(name string, note []byte) error {
		if name != t.stateName() {
			return nil
		}
		r := noteReader{src: note}
		r.version()
		interval, ttl, closed, found = r.varint(), r.varint(), r.varint(), true
		if !r.ended() || interval <= 0 || ttl < interval || ttl > thinTimeMax || ttl/interval > thinPointsMax || !validTime(closed) {
			return fmt.Errorf("note %s: %w", name, errNote)
		}
		return nil
	})
	return interval, ttl, closed, found, err
}

// appendNote appends the note of a series: the version, the labels with their length,
// the tick up to which it is forgotten, and the samples, those used longest ago first:
// time, start time and the eight bytes of the value, little endian. Called with mu held.
func (s *thinSeries) appendNote(dst []byte) []byte {
	dst = append(dst, noteVersion)
	dst = append(binary.AppendUvarint(dst, uint64(len(s.wire))), s.wire...)
	dst = binary.AppendVarint(dst, s.forgotten)
	inOrder := true // of time, as mostly
	for i := 1; i < len(s.samples); i++ {
		inOrder = inOrder && s.samples[i-1].used < s.samples[i].used
	}
	if !inOrder {
		slices.SortFunc(s.samples, func(a, b thinSample) int { return int(int64(a.used) - int64(b.used)) })
	}
	for i := range s.samples {
		p := &s.samples[i]
		dst = binary.AppendVarint(binary.AppendVarint(dst, p.millis), p.start)
		dst = binary.LittleEndian.AppendUint64(dst, p.bits)
	}
	if !inOrder {
		s.sort()
	}
	return dst
}

func (s *thinSeries) sort() {
	slices.SortFunc(s.samples, func(a, b thinSample) int {
		switch {
		case a.millis < b.millis:
			return -1
		case a.millis > b.millis:
			return 1
		}
		return 0
	})
}

// parseThinSeries reads what appendNote wrote.
func parseThinSeries(note []byte) (*thinSeries, error) {
	r := noteReader{src: note}
	r.version()
	s := &thinSeries{wire: append([]byte(nil), r.bytes()...), forgotten: r.varint(), noted: true}
	if _, err := parseWire(s.wire); err != nil {
		return nil, err
	}
	for len(r.src) > 0 {
		s.uses++
		p := thinSample{millis: r.varint(), start: r.varint(), bits: r.fixed(), used: s.uses}
		if !validTime(p.millis) {
			return nil, errNote
		}
		s.samples = append(s.samples, p)
	}
	if !r.ended() {
		return nil, errNote
	}
	s.sort()
	return s, nil
}

func (t *thinner) readSeries() error {
	now := t.now().UnixMilli()
	return t.notes.EachNote(t.name+thinNotes, func(name string, note []byte) error {
		s, err := parseThinSeries(note)
		if err != nil {
			return fmt.Errorf("note %s: %w", name, err)
		}
		s.key, s.touchedMillis = t.sink.Seed().Hash(s.wire), now
		if t.noteName(s.key) != name {
			return fmt.Errorf("note %s: %w: it is of another series", name, errNote)
		}
		// The interval may be another one than when they were noted.
		kept := s.samples[:0]
		for _, p := range s.samples {
			if n := len(kept); n > 0 && t.bucket(kept[n-1].millis) == t.bucket(p.millis) {
				kept[n-1] = p
				continue
			}
			kept = append(kept, p)
		}
		s.samples = kept
		t.byKey[s.key] = s
		return nil
	})
}

// settle returns when the notes of a group are durable. Whoever comes first saves
// those of all who wait.
func (t *thinner) settle(ctx context.Context, group uint64) error {
	t.saving.Lock()
	defer t.saving.Unlock()
	if t.saved >= group {
		return nil
	}
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = make([]*thinSeries, 0, len(dirty))
	saving := t.group
	t.group++
	notes := make([]Note, 0, len(dirty))
	values := t.values[:0]
	for _, s := range dirty {
		s.dirty = false
		switch {
		case !s.removed:
			// Where values outgrow their array those before keep the old one.
			from := len(values)
			values = s.appendNote(values)
			notes = append(notes, Note{Name: t.noteName(s.key), Value: values[from:len(values):len(values)]})
		case t.byKey[s.key] == nil:
			notes = append(notes, Note{Name: t.noteName(s.key)})
		}
	}
	t.mu.Unlock()
	t.values = values
	if cap(values) > thinValuesKept {
		t.values = nil
	}
	if err := t.saveAll(ctx, notes, true); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, s := range dirty {
			t.soil(s)
		}
		return fmt.Errorf("save notes of series that are thinned: %w", err)
	}
	t.mu.Lock()
	for _, s := range dirty {
		s.noted = true
	}
	t.mu.Unlock()
	t.saved = saving
	return nil
}

// thinValuesKept bounds the memory that is kept from one saving of notes to the next:
// the notes of about 20 000 series.
const thinValuesKept = 4 << 20

// notesMax is how many notes are saved at once.
const notesMax = 1 << 16

// saveAll saves notes in parts of which the last makes all durable.
func (t *thinner) saveAll(ctx context.Context, notes []Note, durable bool) error {
	for len(notes) > 0 {
		n := min(len(notes), notesMax)
		if err := t.notes.SaveNotes(ctx, notes[:n], durable && n == len(notes)); err != nil {
			return err
		}
		notes = notes[n:]
	}
	return nil
}
