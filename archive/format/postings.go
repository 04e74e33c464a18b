package format

import (
	"encoding/binary"

	"github.com/RoaringBitmap/roaring/v2"
)

// A container holds those of 65,536 neighbouring refs that a posting names, by
// their low 16 bits. Its first byte tells which of three forms it has; the
// writer takes the smallest.
const (
	containerArray  = 0 // the values, 2 bytes each, little endian, ascending
	containerRuns   = 1 // first value and length-1 of each run, 2 bytes each, little endian
	containerBitmap = 2 // 8 KiB, bit v of the container is bit v%8 of byte v/8
)

const containerSize = 1 << 16

// AppendContainer appends the form of the values of set that lie in
// [base, base+65535]. base is a multiple of 65,536. ok is false and dst unchanged when there is none.
func AppendContainer(dst []byte, set *roaring.Bitmap, base uint32) (_ []byte, ok bool) {
	var values []uint16
	runs := 0
	it := set.Iterator()
	it.AdvanceIfNeeded(base)
	for it.HasNext() {
		v := it.Next()
		if v-base >= containerSize {
			break
		}
		low := uint16(v - base)
		if n := len(values); n == 0 || values[n-1]+1 != low {
			runs++
		}
		values = append(values, low)
	}
	switch {
	case len(values) == 0:
		return dst, false
	case 2*runs <= len(values) && 4*runs < containerSize/8:
		return appendRuns(append(dst, containerRuns), values), true
	case 2*len(values) < containerSize/8:
		dst = append(dst, containerArray)
		for _, v := range values {
			dst = binary.LittleEndian.AppendUint16(dst, v)
		}
		return dst, true
	}
	dst = append(dst, containerBitmap)
	at := len(dst)
	dst = append(dst, make([]byte, containerSize/8)...)
	for _, v := range values {
		dst[at+int(v>>3)] |= 1 << (v & 7)
	}
	return dst, true
}

func appendRuns(dst []byte, values []uint16) []byte {
	for i := 0; i < len(values); {
		j := i + 1
		for j < len(values) && values[j] == values[j-1]+1 {
			j++
		}
		dst = binary.LittleEndian.AppendUint16(dst, values[i])
		dst = binary.LittleEndian.AppendUint16(dst, uint16(j-i-1))
		i = j
	}
	return dst
}

// AddContainer adds the values of a container, offset by base, to set. On an
// error set may hold a part of them.
func AddContainer(set *roaring.Bitmap, b []byte, base uint32) error {
	if len(b) < 3 {
		return corrupt("container of %d bytes", len(b))
	}
	body := b[1:]
	switch b[0] {
	case containerArray:
		return addArray(set, body, base)
	case containerRuns:
		return addRuns(set, body, base)
	case containerBitmap:
		return addBitmap(set, body, base)
	}
	return corrupt("container of form %d", b[0])
}

func addArray(set *roaring.Bitmap, body []byte, base uint32) error {
	if len(body)%2 != 0 {
		return corrupt("array container of %d bytes", len(body))
	}
	values := make([]uint32, 0, len(body)/2)
	for i := 0; i < len(body); i += 2 {
		values = append(values, base+uint32(binary.LittleEndian.Uint16(body[i:])))
	}
	for i := 1; i < len(values); i++ {
		if values[i] <= values[i-1] {
			return corrupt("array container out of order")
		}
	}
	set.AddMany(values)
	return nil
}

func addRuns(set *roaring.Bitmap, body []byte, base uint32) error {
	if len(body)%4 != 0 {
		return corrupt("run container of %d bytes", len(body))
	}
	var words [containerSize / 64]uint64
	next := uint32(0)
	for i := 0; i < len(body); i += 4 {
		first := uint32(binary.LittleEndian.Uint16(body[i:]))
		end := first + uint32(binary.LittleEndian.Uint16(body[i+2:])) + 1
		if first < next || end > containerSize {
			return corrupt("run container out of order")
		}
		setRange(&words, first, end)
		next = end
	}
	addWords(set, &words, base)
	return nil
}

func addBitmap(set *roaring.Bitmap, body []byte, base uint32) error {
	if len(body) != containerSize/8 {
		return corrupt("bitmap container of %d bytes", len(body))
	}
	var words [containerSize / 64]uint64
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(body[8*i:])
	}
	addWords(set, &words, base)
	return nil
}

// setRange sets the bits from first (inclusive) to end (exclusive), at least one.
func setRange(words *[containerSize / 64]uint64, first, end uint32) {
	i, last := first/64, (end-1)/64
	head, tail := ^uint64(0)<<(first%64), ^uint64(0)>>(63-(end-1)%64)
	if i == last {
		words[i] |= head & tail
		return
	}
	words[i] |= head
	for i++; i < last; i++ {
		words[i] = ^uint64(0)
	}
	words[last] |= tail
}

// addWords adds 65,536 bits at once. Adding runs or values one by one to a roaring
// container that has many is quadratic.
func addWords(set *roaring.Bitmap, words *[containerSize / 64]uint64, base uint32) {
	b := roaring.FromDense(words[:], true)
	if base != 0 {
		b = roaring.AddOffset64(b, int64(base))
	}
	set.Or(b)
}
