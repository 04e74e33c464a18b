package ints

import "fmt"

// part is a part of a list in classes.
type part struct {
	src        []byte // its bytes; of the last part also what follows
	at         int    // where they begin
	first, end int    // its residuals
	fold       fold   // as the residuals before leave it
}

// decodeParts fills x with the values from index first on of a list of which n residuals
// are in parts. f has done nothing yet. It returns the length of all if it read the last
// of them.
func (d *Decoder) decodeParts(src []byte, n, first int, x []int64, f *fold) (used int, err error) {
	r := bitReader{src: src}
	c, err := d.readCode(&r)
	if err != nil {
		return 0, err
	}
	if err := d.readParts(src, r.used(), n, f); err != nil {
		return 0, err
	}
	given := f.order.given()
	parts := d.partsOf(max(first-given, 0), max(first+len(x)-given, 0))
	// Values from the header are those of the first part.
	start := 0
	if parts[0].first > 0 {
		start = given + parts[0].first
	}
	out := x
	if start < first {
		out = d.room(first + len(x) - start)
	}
	residuals := out
	if start == 0 {
		residuals = parts[0].fold.given(out)
	}
	for ; len(parts) > 0; parts = parts[min(2, len(parts)):] {
		if used, err = d.decodePair(parts[:min(2, len(parts))], c, &residuals); err != nil {
			return 0, err
		}
		if len(parts) > 2 {
			if err := parts[1].leads(&parts[2]); err != nil {
				return 0, err
			}
		}
	}
	if start < first {
		copy(x, out[first-start:])
	}
	return used, nil
}

// readParts reads the table of parts, which src[at:] begins with, into d.parts.
func (d *Decoder) readParts(src []byte, at, n int, f *fold) error {
	u := uvarints{src: src, used: min(at, len(src))}
	count := int(min(u.next(), partsMax+1))
	if count < 2 || count > partsMax || partLength(n, count)*(count-1) >= n {
		return fmt.Errorf("%d residuals in %d parts: %w", n, count, ErrCorrupt)
	}
	length := partLength(n, count)
	begun := *f
	begun.begin()
	d.parts = d.parts[:0]
	for i, offset := 0, 0; i < count; i++ {
		d.parts = append(d.parts, part{at: offset, first: i * length, end: min((i+1)*length, n), fold: begun})
		if i == count-1 {
			break
		}
		bytes := u.next()
		if bytes > uint64(len(src)-offset) {
			return fmt.Errorf("part of %d bytes: %w", bytes, ErrCorrupt)
		}
		offset += int(bytes)
		begun.pass(int64(length), &u)
	}
	if u.broken {
		return fmt.Errorf("parts cut off: %w", ErrCorrupt)
	}
	for i := range d.parts {
		p := &d.parts[i]
		p.at += u.used
		end := len(src)
		if i < count-1 {
			end = d.parts[i+1].at + u.used
		}
		if p.at > end || end > len(src) {
			return fmt.Errorf("part of bytes %d to %d of %d: %w", p.at, end, len(src), ErrCorrupt)
		}
		p.src = src[p.at:end]
	}
	d.parts[0].fold = *f
	return nil
}

// partsOf returns the parts that hold the residuals from first on, before end; at least one.
func (d *Decoder) partsOf(first, end int) []part {
	length := d.parts[0].end
	from := min(first/length, len(d.parts)-1)
	return d.parts[from:min(max((end+length-1)/length, from+1), len(d.parts))]
}

// decodePair decodes one or two parts, as far as there is room in residuals, of which it
// takes what it filled, and makes values of them. It returns where the last one ends.
func (d *Decoder) decodePair(parts []part, c code, residuals *[]int64) (used int, err error) {
	var lanes [2]lane
	for i := range parts {
		p := &parts[i]
		n := p.end - p.first
		lanes[i] = lane{bitReader: bitReader{src: p.src}, code: c, n: n, out: (*residuals)[:min(n, len(*residuals))]}
		*residuals = (*residuals)[len(lanes[i].out):]
	}
	if len(parts) == 2 && c.tokenBits <= filledBits {
		if err := d.decodeTwo(&lanes[0], &lanes[1]); err != nil {
			return 0, err
		}
	}
	for i := range parts {
		p, l := &parts[i], &lanes[i]
		if err := d.decodeRest(l); err != nil {
			return 0, err
		}
		if i == 0 && len(parts) == 2 && l.used() != len(p.src) {
			return 0, fmt.Errorf("part of %d bytes has %d: %w", len(p.src), l.used(), ErrCorrupt)
		}
		if err := p.fold.fold(l.out); err != nil {
			return 0, err
		}
		used = p.at + l.used()
		if i == 0 && len(parts) == 2 {
			if err := p.leads(&parts[1]); err != nil {
				return 0, err
			}
		}
	}
	return used, nil
}

// leads checks that the part, once decoded, leads to where the table says that the next
// one begins.
func (p *part) leads(next *part) error {
	if p.fold.order == orderOffset || p.fold.order == orderRank || p.fold.value == next.fold.value && p.fold.delta == next.fold.delta {
		return nil
	}
	return fmt.Errorf("part from %d on begins elsewhere than the one before ends: %w", next.first, ErrCorrupt)
}
