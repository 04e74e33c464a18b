package archive

import (
	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// CountKeys counts the keys of a family that begin with the prefix.
func (a *Archive) CountKeys(f format.Family, prefix string) (n int) {
	it := a.db.NewIterator(family(f), rocks.IterOptions{})
	defer it.Close()
	for it.Seek([]byte(prefix)); it.Valid() && len(it.Key()) >= len(prefix) && string(it.Key()[:len(prefix)]) == prefix; it.Next() {
		n++
	}
	return n
}

// HasRecord tells whether the series exists.
func (a *Archive) HasRecord(ref format.Ref) bool {
	_, err := a.cat.record(ref)
	return err == nil
}

// ForgetEasily makes series of any age be forgotten, three in a batch.
func (a *Archive) ForgetEasily() { a.forgets.ageMin, a.forgets.batch = 0, 3 }

// KeyTable gives a test the table of keys.
type KeyTable struct{ t *keyTable }

// NewKeyTable makes an empty one.
func NewKeyTable() KeyTable { return KeyTable{newKeyTable()} }

// Put is put.
func (k KeyTable) Put(key arrival.Key, ref format.Ref) { k.t.put(key, ref) }

// Get is get.
func (k KeyTable) Get(key arrival.Key) format.Ref { return k.t.get(key) }

// Forget is forget.
func (k KeyTable) Forget(gone func(format.Ref) bool) { k.t.forget(gone) }

// Bytes is bytes.
func (k KeyTable) Bytes() int { return k.t.bytes() }
