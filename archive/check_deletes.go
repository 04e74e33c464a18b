package archive

import (
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
)

// tombstones checks that what live deletes are about is there, and that a start will not read
// back what they hide.
func (c *checker) tombstones() error {
	return c.walk(format.FamilyTombstones, func(key, value []byte) error {
		if _, err := format.ParseTombstoneKey(key); err != nil {
			return err
		}
		var t format.Tombstone
		if err := t.Parse(value); err != nil {
			return err
		}
		c.n.Deletes++
		if t.State.Ended() {
			return nil
		}
		if unknown := roaring.AndNot(t.Refs, c.series); !unknown.IsEmpty() {
			return fmt.Errorf("names series %d, which does not exist", unknown.Minimum())
		}
		var err error
		eachPage(t.Refs, func(first format.Ref) {
			if mark := c.marks[string(format.AppendPageName(nil, first))]; mark < uint64(t.Sequence) && err == nil {
				err = fmt.Errorf("hides what has a lower sequence than %d, but series from %d on are only known to be cut up to %d", t.Sequence, first, mark)
			}
		})
		return err
	})
}
