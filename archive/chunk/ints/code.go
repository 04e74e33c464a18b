package ints

import (
	"math/bits"
	"slices"
)

// Codes are at most codeBitsMax bits long, so that a decoding table stays small.
const (
	codeBitsMax = 11
	codeSpace   = 1 << codeBitsMax
)

// prefixCode is a canonical Huffman code for symbols of which it is known how often they
// occur.
//
// Codes of one length are consecutive numbers in ascending order of their symbols, and go
// on from those of the length before as in any canonical code. They are written with
// their highest bit first into bits that go from the lowest up.
type prefixCode struct {
	count   [symbolCount]uint32
	lengths [symbolCount]uint8 // of the codes in bits, 0 for symbols that don't occur
	alone   bool               // one symbol only, whose code has no bits
	sorted  []uint64

	description []codeField
}

// build finds the code for c.count and returns how many bits its description, the codes
// and the raw bits take in all.
func (c *prefixCode) build() (size uint) {
	c.findLengths()
	c.describe()
	for _, f := range c.description {
		size += uint(f.bits)
	}
	for _, s := range c.sorted {
		symbol, count := s&0xff, uint(s>>8)
		size += count * (c.bits(int(symbol)) + uint(rawBits[symbol]))
	}
	return size
}

// bits is the length of a symbol's code.
func (c *prefixCode) bits(symbol int) uint {
	if c.alone {
		return 0
	}
	return uint(c.lengths[symbol])
}

// findLengths gives every symbol that occurs a code length of at most bitsMax,
// so that the lengths are those of a complete prefix code.
func (c *prefixCode) findLengths() {
	clear(c.lengths[:])
	c.sorted = c.sorted[:0]
	for s, count := range c.count {
		if count > 0 {
			c.sorted = append(c.sorted, uint64(count)<<8|uint64(s))
		}
	}
	c.alone = len(c.sorted) == 1
	if c.alone {
		c.lengths[c.sorted[0]&0xff] = 1
		return
	}
	slices.Sort(c.sorted)
	var weights [symbolCount]uint64
	for i, s := range c.sorted {
		weights[i] = s >> 8
	}
	depths := weights[:len(c.sorted)]
	huffmanDepths(depths)
	perLength := limitDepths(depths, c.bitsMax())
	// The rarest symbols come first and get the longest codes.
	i := 0
	for n := codeBitsMax; n > 0; n-- {
		for range perLength[n] {
			c.lengths[c.sorted[i]&0xff] = uint8(n)
			i++
		}
	}
}

// huffmanDepths replaces weights, which ascend, by the depths of the leaves in a
// Huffman tree. It is the in-place method of Moffat and Katajainen (1995): first
// a's front turns into the weights and then into the parents of the inner nodes,
// then into their depths, and last the leaves get theirs from what is left on each
// level. len(a) >= 2.
func huffmanDepths(a []uint64) {
	n := len(a)
	a[0] += a[1]
	root, leaf := 0, 2
	for next := 1; next < n-1; next++ {
		if leaf >= n || a[root] < a[leaf] {
			a[next] = a[root]
			a[root] = uint64(next)
			root++
		} else {
			a[next] = a[leaf]
			leaf++
		}
		if leaf >= n || root < next && a[root] < a[leaf] {
			a[next] += a[root]
			a[root] = uint64(next)
			root++
		} else {
			a[next] += a[leaf]
			leaf++
		}
	}
	a[n-2] = 0
	for next := n - 3; next >= 0; next-- {
		a[next] = a[a[next]] + 1
	}
	available, depth := 1, uint64(0)
	root = n - 2
	next := n - 1
	for available > 0 {
		used := 0
		for root >= 0 && a[root] == depth {
			used++
			root--
		}
		for available > used {
			a[next] = depth
			next--
			available--
		}
		available = 2 * used
		depth++
	}
}

// bitsMax is how long codes may get: with few tokens less than codeBitsMax, since a long
// code for something rare gains less than its length costs to describe. One bit less than
// the number of tokens has is best for lists of a node exporter, by 0.5 % with 100 tokens.
func (c *prefixCode) bitsMax() int {
	tokens := uint64(0)
	for _, s := range c.sorted {
		tokens += s >> 8
	}
	enough := bits.Len(uint(len(c.sorted) - 1)) // for as many codes as there are symbols
	return max(enough, min(codeBitsMax, bits.Len64(tokens)-1))
}

// limitDepths counts the codes of each length, with none above bitsMax. What was deeper is
// lifted, and for each unit of code space that this overdraws, a code of the next
// shorter length that exists makes room by becoming two.
func limitDepths(depths []uint64, bitsMax int) (perLength [codeBitsMax + 1]int) {
	space := 1 << bitsMax
	total := 0
	for _, d := range depths {
		n := min(int(d), bitsMax)
		perLength[n]++
		total += space >> n
	}
	for ; total > space; total-- {
		n := bitsMax - 1
		for perLength[n] == 0 {
			n--
		}
		perLength[n]--
		perLength[n+1] += 2
		perLength[bitsMax]--
	}
	return perLength
}

// codeField is a few bits of the description of a code.
type codeField struct {
	value uint16
	bits  uint8
}

// Forms of the distance between two symbols that occur, in the description of a code.
const (
	gapBits    = 4
	gapGroup   = 14 // on to the next multiple of symbolExact
	gapFar     = 15 // the symbol follows in gapFarBits
	gapFarBits = 8
	// symbolBitsMax are those of the longest gap and the longest code length.
	symbolBitsMax = 1 + gapBits + gapFarBits + 7
)

// codeLengthStart is what the first code length of a description is a change of.
const codeLengthStart = 5

// describe writes down the code: symbols that occur, in ascending order, each with
// its distance to the one before and the change of the code length. It ends where
// the lengths fill the code space.
func (c *prefixCode) describe() {
	c.description = c.description[:0]
	next, length := 0, codeLengthStart
	for s := range c.lengths {
		if c.lengths[s] == 0 {
			continue
		}
		n := int(c.bits(s))
		c.description = append(c.description, gapField(next, s), lengthField(length, n))
		next, length = s+1, n
	}
}

// gapField says that the next symbol is s, where it could have been as low as next.
func gapField(next, s int) codeField {
	switch {
	case s == next:
		return codeField{0, 1}
	case s == (next/symbolExact+1)*symbolExact:
		return codeField{1 | gapGroup<<1, 1 + gapBits}
	case s-next <= gapGroup:
		return codeField{1 | uint16(s-next-1)<<1, 1 + gapBits}
	default:
		return codeField{1 | gapFar<<1 | uint16(s)<<(1+gapBits), 1 + gapBits + gapFarBits}
	}
}

// lengthField says that a code length n follows one of before bits: 0 the same, 10
// longer by one, 110 shorter by one, 111 and the length in four bits.
func lengthField(before, n int) codeField {
	switch n - before {
	case 0:
		return codeField{0, 1}
	case 1:
		return codeField{0b01, 2}
	case -1:
		return codeField{0b011, 3}
	default:
		return codeField{0b111 | uint16(n)<<3, 7}
	}
}

// codes gives each symbol its code, turned around so that the bit to write first is the
// lowest.
func (c *prefixCode) codes(codes *[symbolCount]uint16) {
	var perLength [codeBitsMax + 1]int
	for _, n := range c.lengths {
		perLength[n]++
	}
	perLength[0] = 0
	next := firstCodes(&perLength)
	for s, n := range c.lengths {
		if n > 0 {
			codes[s] = reverseCode(next[n], uint(n))
			next[n]++
		}
	}
}

// firstCodes is the first canonical code of each length.
func firstCodes(perLength *[codeBitsMax + 1]int) (first [codeBitsMax + 1]int) {
	code := 0
	for n := 1; n <= codeBitsMax; n++ {
		code = (code + perLength[n-1]) << 1
		first[n] = code
	}
	return first
}

func reverseCode(code int, n uint) uint16 { return bits.Reverse16(uint16(code)) >> (16 - n) }
