package archive

import (
	"bytes"
	"fmt"

	"varve/archive/format"
)

// placeRecord checks a record of meta that is about places in the journal, or kept for the layers above. known is false for others.
func (c *checker) placeRecord(key, value []byte) (known bool, err error) {
	switch {
	case string(key) == format.MetaStamp, bytes.HasPrefix(key, []byte(format.MetaEdgePrefix)):
		_, err = format.ParseStamp(value)
	case bytes.HasPrefix(key, []byte(format.MetaCursorPrefix)):
		var cursor format.Cursor
		if err = cursor.Parse(value); err == nil {
			c.cursors[string(key[len(format.MetaCursorPrefix):])] = cursor
		}
	case bytes.HasPrefix(key, []byte(format.MetaNotePrefix)):
		_, err = format.ParseNote(key, value)
	default:
		return false, nil
	}
	return true, err
}

// keptRecord checks a record of the journal that a start does not read, but a cursor may.
func (c *checker) keptRecord(j *format.Journal, seq uint64, value []byte) error {
	kept, noted := c.marks[format.MetaKept]
	if !noted || seq < kept {
		return nil
	}
	if err := j.Open(format.Sequence(seq), value); err != nil {
		return err
	}
	return eachArrival(j, func(format.Ref, int64, uint64) {})
}

// gaps checks what cursors owe by time.
func (c *checker) gaps() error {
	var g format.Gap
	return c.walk(format.FamilyGaps, func(key, value []byte) error {
		k, err := format.ParseGapKey(key)
		if err != nil {
			return err
		}
		cursor, ok := c.cursors[k.Cursor]
		if !ok {
			return fmt.Errorf("is of output %q, which there is not", k.Cursor)
		}
		if k.Gap >= cursor.NextGap {
			return fmt.Errorf("is number %d of output %q, which has had %d", k.Gap, k.Cursor, cursor.NextGap-1)
		}
		return g.Parse(value)
	})
}
