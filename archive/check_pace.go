package archive

import (
	"varve/archive/format"
)

// walked counts what one walk over a family reads of it.
type walked struct {
	c      *checker
	family format.Family
	// bytes are those of the family's table files, keys about how many there are, read how many were.
	bytes, keys, seen uint64
}

// passes is how often a check walks over a family.
func passes(f format.Family) uint64 {
	if f == format.FamilySymbols {
		return 2 // By id, then by text.
	}
	return 1
}

// measure finds how much there is to walk over.
func (c *checker) measure() {
	for f := range format.FamilyNames {
		c.total += passes(format.Family(f)) * c.db.FamilyStats(family(format.Family(f))).Bytes
	}
}

// begin begins a walk over a family.
func (c *checker) begin(f format.Family) *walked {
	w := &walked{c: c, family: f, bytes: c.db.FamilyStats(family(f)).Bytes}
	if c.pace != nil {
		w.keys = c.db.KeysEstimate(family(f))
	}
	return w
}

// read tells of a record of so many bytes. It is false when the check is to end.
func (w *walked) read(bytes int) bool {
	w.seen++
	done := w.c.done
	if w.keys > 0 {
		done += uint64(float64(w.bytes) * min(1, float64(w.seen)/float64(w.keys)))
	}
	return w.c.tell(w.family, done, bytes)
}

// end tells that the walk is over.
func (w *walked) end() { w.c.done += w.bytes }

// breathe tells of bytes that were read beside a walk. It is false when the check is to end.
func (c *checker) breathe(bytes int) bool { return c.tell(format.FamilyIndex, c.told, bytes) }

func (c *checker) tell(f format.Family, done uint64, bytes int) bool {
	if c.pace == nil || c.ended != nil {
		return c.ended == nil
	}
	c.told = done
	c.ended = c.pace(format.FamilyNames[f], done, c.total, bytes)
	return c.ended == nil
}
