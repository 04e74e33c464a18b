package rocks

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Batch gathers changes of any families for one atomic DB.Write. It is built in
// Go memory in RocksDB's own form, so adding a record costs no call into C:
//
//	sequence u64 = 0 | count u32 | record ...        fixed integers little endian
//	put          0x05 | family | key | value         key and value: uvarint length, bytes
//	delete       0x04 | family | key
//	delete range 0x0e | family | lower | upper
//
// The family is one byte, its index plus one: the id RocksDB gives it when the
// families were created in the order of Options. DB.Write translates the batch
// for a database in which they were not.
//
// Records apply in the order they were added. The zero Batch is empty and ready.
// A Batch is not safe for concurrent use; keys and values are copied when added.
type Batch struct {
	rep   []byte
	count uint32
	// top is the highest family named: Write refuses one the DB has not, because
	// RocksDB notices only after it has written the batch to its log.
	top Family
	// broken says why Write must refuse the batch: more than 2^32-1 records, an
	// element of 4 GiB, a family beyond familiesMax.
	broken error
}

const (
	batchHeaderLen = 12

	recordDelete      = 0x04
	recordPut         = 0x05
	recordDeleteRange = 0x0e

	// familiesMax keeps the family of a record in one byte of uvarint.
	familiesMax = 126
)

// Put sets key to value.
func (b *Batch) Put(f Family, key, value []byte) {
	b.begin(recordPut, f)
	b.bytes(key)
	b.bytes(value)
}

// PutParts sets key to the parts in a row.
func (b *Batch) PutParts(f Family, key []byte, value ...[]byte) {
	b.begin(recordPut, f)
	b.bytes(key)
	n := 0
	for _, part := range value {
		n += len(part)
	}
	b.length(n)
	for _, part := range value {
		b.rep = append(b.rep, part...)
	}
}

// Delete removes key, if it is there.
func (b *Batch) Delete(f Family, key []byte) {
	b.begin(recordDelete, f)
	b.bytes(key)
}

// DeleteRange removes all keys from lower, inclusive, to upper, exclusive. Each
// range slows every read of the family until compaction has worked it in, so it
// is for a few ranges, not for one a series, and not for a journal (ProfileLog).
// Bounds the wrong way round are an empty range: RocksDB would refuse them only
// when the log has them, and then at every opening.
func (b *Batch) DeleteRange(f Family, lower, upper []byte) {
	if bytes.Compare(lower, upper) >= 0 {
		return
	}
	b.begin(recordDeleteRange, f)
	b.bytes(lower)
	b.bytes(upper)
}

// Append adds the records of o behind those of b. o stays as it is.
func (b *Batch) Append(o *Batch) {
	if o.count == 0 {
		return
	}
	if len(b.rep) == 0 {
		b.rep = append(b.rep, make([]byte, batchHeaderLen)...)
	}
	b.rep = append(b.rep, o.rep[batchHeaderLen:]...)
	b.top = max(b.top, o.top)
	if b.broken == nil {
		b.broken = o.broken
	}
	if b.count+o.count < b.count && b.broken == nil {
		b.broken = fmt.Errorf("batch has too many records")
	}
	b.count += o.count
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.rep, b.count, b.top, b.broken = b.rep[:0], 0, 0, nil }

// Len is the number of records.
func (b *Batch) Len() int { return int(b.count) }

// Bytes is the size of the batch as it goes to the write-ahead log.
func (b *Batch) Bytes() int { return max(len(b.rep), batchHeaderLen) }

func (b *Batch) begin(record byte, f Family) {
	if len(b.rep) == 0 {
		b.rep = append(b.rep, make([]byte, batchHeaderLen)...)
	}
	if f >= familiesMax && b.broken == nil {
		b.broken = fmt.Errorf("family %d is out of range", f)
	}
	b.top = max(b.top, f)
	b.count++
	if b.count == 0 && b.broken == nil {
		b.count--
		b.broken = fmt.Errorf("batch has too many records")
	}
	b.rep = append(b.rep, record, byte(f)+1)
}

func (b *Batch) bytes(p []byte) {
	b.length(len(p))
	b.rep = append(b.rep, p...)
}

func (b *Batch) length(n int) {
	if uint64(n) > 1<<32-1 && b.broken == nil {
		b.broken = fmt.Errorf("key or value of %d bytes is too long", n)
	}
	b.rep = binary.AppendUvarint(b.rep, uint64(n))
}

// wire completes the header and returns the batch in RocksDB's form, nil when it
// is empty.
func (b *Batch) wire() ([]byte, error) {
	if b.broken != nil || b.count == 0 {
		return nil, b.broken
	}
	binary.LittleEndian.PutUint32(b.rep[8:], b.count)
	return b.rep, nil
}

// translate appends rep to dst with the families' ids in place of their index
// plus one. rep is what a Batch built; ids are indexed by Family.
func translate(dst, rep []byte, ids []uint32) []byte {
	dst = append(dst, rep[:batchHeaderLen]...)
	for rep = rep[batchHeaderLen:]; len(rep) > 0; {
		record, family := rep[0], rep[1]
		dst = append(dst, record)
		dst = binary.AppendUvarint(dst, uint64(ids[family-1]))
		n := elementLen(rep[2:])
		if record != recordDelete {
			n += elementLen(rep[2+n:])
		}
		dst = append(dst, rep[2:2+n]...)
		rep = rep[2+n:]
	}
	return dst
}

// elementLen is the length of a length-prefixed element with its prefix.
func elementLen(p []byte) int {
	n, prefix := binary.Uvarint(p)
	return prefix + int(n)
}
