package ints

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// blockLen is the number of residuals in a block of the packed coder. All blocks
// but the last have as many. 128 residuals of any width are whole bytes.
const blockLen = 128

// blockPatched in the width byte of a block says that patches follow.
const blockPatched = 1 << 7

// packedPlan is how a list is packed best: a width for each block, and the size.
type packedPlan struct {
	widths []uint8
	size   int
}

// plan finds the widths for z.
func (p *packedPlan) plan(z []uint64) {
	p.widths = p.widths[:0]
	p.size = 0
	for len(z) > 0 {
		block := z[:min(blockLen, len(z))]
		z = z[len(block):]
		width, size := blockWidth(block)
		p.widths = append(p.widths, width)
		p.size += size
	}
}

// blockWidth finds the width at which a block is smallest, and its size in bytes.
//
// A residual of more than width bits costs a position of one byte and the uvarint
// of what lies above the width. Going down by one bit from width w+1, the residuals
// of w+1 bits become patches, and those of w+1+7, w+1+14, ... bits need a byte more.
func blockWidth(z []uint64) (width uint8, size int) {
	var count [65 + 63]uint16
	top := 0
	for _, v := range z {
		n := bits.Len64(v)
		count[n]++
		top = max(top, n)
	}
	width, size = uint8(top), 1+(top*len(z)+7)/8
	patches, patchBytes := 0, 1
	for w := top - 1; w >= 0; w-- {
		patches += int(count[w+1])
		patchBytes += int(count[w+1])
		for n := w + 1; n <= top; n += 7 {
			patchBytes += int(count[n])
		}
		s := 1 + (w*len(z)+7)/8 + patchBytes
		if s <= size {
			width, size = uint8(w), s
		}
	}
	return width, size
}

// append writes z as planned.
func (p *packedPlan) append(dst []byte, z []uint64) []byte {
	for _, width := range p.widths {
		block := z[:min(blockLen, len(z))]
		z = z[len(block):]
		dst = appendBlock(dst, block, uint(width))
	}
	return dst
}

func appendBlock(dst []byte, z []uint64, width uint) []byte {
	patches := 0
	for _, v := range z {
		if bits.Len64(v) > int(width) {
			patches++
		}
	}
	if patches > 0 {
		dst = append(dst, byte(width)|blockPatched, byte(patches))
	} else {
		dst = append(dst, byte(width))
	}
	dst = packBlock(dst, z, width)
	if patches == 0 {
		return dst
	}
	for i, v := range z {
		if bits.Len64(v) > int(width) {
			dst = append(dst, byte(i))
		}
	}
	for _, v := range z {
		if bits.Len64(v) > int(width) {
			dst = binary.AppendUvarint(dst, v>>width)
		}
	}
	return dst
}

// packBlock appends the low width bits of each residual.
func packBlock(dst []byte, z []uint64, width uint) []byte {
	if width == 0 {
		return dst
	}
	start := len(dst)
	dst = grow(dst, (int(width)*len(z)+7)/8+wordBytes)
	w := bitWriter{buf: dst[start:]}
	mask := uint64(1)<<width - 1
	if width > putBitsMax {
		for _, v := range z {
			w.putLong(v&mask, width)
		}
	} else {
		for _, v := range z {
			w.put(v&mask, width)
		}
	}
	return dst[:start+w.end()]
}

// decodeBlock fills out with the first residuals of a block of n, len(out) <= n,
// and returns the length of the block in bytes.
func (d *Decoder) decodeBlock(src []byte, n int, out []int64) (used int, err error) {
	if len(src) < 1 {
		return 0, fmt.Errorf("block cut off: %w", ErrCorrupt)
	}
	width := uint(src[0] &^ blockPatched)
	patched := src[0]&blockPatched != 0
	patches := 0
	used = 1
	if patched {
		if len(src) < 2 {
			return 0, fmt.Errorf("block cut off: %w", ErrCorrupt)
		}
		patches = int(src[1])
		used = 2
	}
	packed := (int(width)*n + 7) / 8
	if width > 64 || patched && (patches == 0 || patches > n) || len(src) < used+packed+2*patches {
		return 0, fmt.Errorf("block of width %d with %d patches in %d bytes: %w", width, patches, len(src), ErrCorrupt)
	}
	switch {
	case width == 0:
		clear(out)
	case len(src) >= used+packed+wordBytes:
		unpack(src[used:], width, out)
	default:
		// The end of all bytes is near: unpack touches a word behind the block.
		copied := d.tail[:packed+wordBytes]
		clear(copied[copy(copied, src[used:used+packed]):])
		unpack(copied, width, out)
	}
	used += packed
	if !patched {
		return used, nil
	}
	return patchBlock(src, used, patches, width, n, out)
}

// patchBlock puts the high bits into the residuals of a block. src[used:] begins
// with the positions, of which there are enough bytes.
func patchBlock(src []byte, used, patches int, width uint, n int, out []int64) (int, error) {
	positions := src[used : used+patches]
	used += patches
	for _, p := range positions {
		high, length := binary.Uvarint(src[used:])
		if length <= 0 || int(p) >= n {
			return 0, fmt.Errorf("patch at %d of %d: %w", p, n, ErrCorrupt)
		}
		used += length
		if int(p) < len(out) {
			out[p] |= int64(high << width)
		}
	}
	return used, nil
}

// unpack fills out with integers of width bits, 1 to 64. src reaches a word behind
// the last of them.
func unpack(src []byte, width uint, out []int64) {
	mask := uint64(1)<<width - 1
	bit := uint(0)
	// Wherever in a byte a bit is, a word from there on has filledBits.
	if width <= filledBits/4 {
		for ; len(out) >= 4; out = out[4:] {
			word := binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7)
			out[0] = int64(word & mask)
			word >>= width & 63
			out[1] = int64(word & mask)
			word >>= width & 63
			out[2] = int64(word & mask)
			out[3] = int64(word >> (width & 63) & mask)
			bit += 4 * width
		}
	}
	switch {
	case width <= filledBits:
		for i := range out {
			out[i] = int64(binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7) & mask)
			bit += width
		}
	case width == 64:
		for i := range out {
			out[i] = int64(binary.LittleEndian.Uint64(src[8*i:]))
		}
	default:
		for i := range out {
			out[i] = int64(wordAt(src, bit) & mask)
			bit += width
		}
	}
}

// grow returns dst lengthened by n bytes of any content.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) < n {
		larger := make([]byte, len(dst), 2*cap(dst)+n)
		copy(larger, dst)
		dst = larger
	}
	return dst[:len(dst)+n]
}
