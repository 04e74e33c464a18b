package ints

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// The classes coder writes residuals as symbols of a prefix code with raw bits behind
// some of them. Symbols, by number:
//
//	0          one zero
//	1 to 15    a run of zeros: 2^k and what k raw bits say
//	16 to 31   the residuals 1 to 16
//	32 up      residuals of 5 and more bits, two symbols for each number of bits n:
//	           the highest bits are 10 or 11, and n-2 raw bits follow
const (
	symbolRunMax  = 15
	symbolExact   = 16
	symbolLarge   = 32
	symbolCount   = symbolLarge + 2*(64-4)
	runMax        = 1<<(symbolRunMax+1) - 1
	largeBitsMin  = 5
	exactMax      = symbolLarge - symbolExact
	classesLenMin = 12 // of shorter lists the code alone is larger than packing
	// partsTokensMin is when a list is coded in parts. A decoder can begin at any of them,
	// and it reads two in turns: each token's place depends on the one before, and two such
	// chains take little longer than one. A part costs some seven bytes, of two hundred or more.
	partsTokensMin = 2048
	// partLen is about how many residuals are in a part.
	partLen = 1024
	// partsMax bounds what a decoder holds. With less than the root of the residuals no part
	// is empty.
	partsMax = 256
	// shortRuns is a length of runs. If they have less on average, the list is also
	// tried without runs, since their lengths are a burden then.
	shortRuns = 4
)

// rawBits are how many raw bits are behind each symbol.
var rawBits = func() (raw [symbolCount]uint8) {
	for s := range symbolRunMax + 1 {
		raw[s] = uint8(s)
	}
	for s := symbolLarge; s < symbolCount; s++ {
		raw[s] = uint8((s-symbolLarge)/2 + largeBitsMin - 2)
	}
	return raw
}()

// smallSymbols are the symbols of the residuals from 1 on that are looked up.
var smallSymbols = func() (symbols [256]uint8) {
	for z := 1; z <= exactMax; z++ {
		symbols[z] = uint8(z + symbolExact - 1)
	}
	for z := exactMax + 1; z < len(symbols); z++ {
		symbols[z] = uint8(largeSymbol(uint64(z)))
	}
	return symbols
}()

// largeSymbol is the symbol of a residual above exactMax.
func largeSymbol(z uint64) int {
	n := bits.Len64(z)
	return symbolLarge + 2*(n-largeBitsMin) + int(z>>(n-2)&1)
}

// symbolOf is the symbol of a residual other than 0.
func symbolOf(z uint64) int {
	if z < uint64(len(smallSymbols)) {
		return int(smallSymbols[z])
	}
	return largeSymbol(z)
}

// runOf is the symbol of a run of 1 to runMax zeros.
func runOf(zeros int) int { return bits.Len64(uint64(zeros)) - 1 }

// zeros is the number of zeros that z begins with, at most runMax.
func zeros(z []uint64) int {
	n := 0
	for n < len(z) && n < runMax && z[n] == 0 {
		n++
	}
	return n
}

// classesPlan is how a list is coded best in classes, and its size.
type classesPlan struct {
	code  *prefixCode // one of those below
	parts int         // above 1: so many parts of the list have bits of their own
	size  int         // in bytes; an estimate if there are parts
	table []byte

	runs   prefixCode
	noRuns prefixCode
}

// partsOf is in how many parts a list of n residuals is coded, if it has tokens enough. It is
// even, for they are read in pairs.
func partsOf(n int) int { return min(2*max(1, (n+partLen)/(2*partLen)), partsMax) }

// partLength is how many of n residuals are in each of so many parts but the last.
func partLength(n, parts int) int { return (n + parts - 1) / parts }

// plan finds the code for z, the residuals of an order, which isn't empty.
func (p *classesPlan) plan(z []uint64, order order) {
	p.parts = 1
	if len(z) >= partsTokensMin {
		p.parts = partsOf(len(z))
	}
	tokens, runs := p.tally(z)
	if p.parts > 1 && tokens < partsTokensMin {
		p.parts = 1
		tokens, runs = p.tally(z)
	}
	single := len(z) - (tokens - runs) // zeros
	p.code = &p.runs
	size := p.runs.build()
	if runs < single && single < shortRuns*runs {
		p.noRuns.count = p.runs.count
		clear(p.noRuns.count[:symbolRunMax+1])
		p.noRuns.count[0] = uint32(single)
		if s := p.noRuns.build(); s <= size {
			p.code = &p.noRuns
			size = s
		}
	}
	p.size = int(size+7) / 8
	if p.parts > 1 {
		const stateBytes = 2
		each := 1 + uvarintBytes(uint64(p.size/p.parts))
		if order == orderDelta || order == orderTurn {
			each += stateBytes * int(order)
		}
		p.size += 1 + each*(p.parts-1)
	}
}

// tally counts the symbols of z in p.runs. It returns how many there are in all, and how
// many for zeros and runs of them. No run goes from one part to the next.
func (p *classesPlan) tally(z []uint64) (tokens, runs int) {
	clear(p.runs.count[:])
	length := partLength(len(z), p.parts)
	for len(z) > 0 {
		n := min(length, len(z))
		t, r := p.runs.tally(z[:n])
		tokens, runs, z = tokens+t, runs+r, z[n:]
	}
	return tokens, runs
}

// tally counts the symbols of z. It returns how many there are in all, and how many for
// zeros and runs of them.
func (c *prefixCode) tally(z []uint64) (tokens, runs int) {
	for i := 0; i < len(z); tokens++ {
		if z[i] != 0 {
			c.count[symbolOf(z[i])]++
			i++
			continue
		}
		run := zeros(z[i:])
		c.count[runOf(run)]++
		runs++
		i += run
	}
	return tokens, runs
}

// append writes z as planned. state appends what a decoder must know that begins with
// the residual at end, and not with the one at first.
func (p *classesPlan) append(dst []byte, z []uint64, state func(dst []byte, first, end int) []byte) []byte {
	start := len(dst)
	dst = grow(dst, p.size+wordBytes)
	w := bitWriter{buf: dst[start:]}
	for _, f := range p.code.description {
		w.put(uint64(f.value), uint(f.bits))
	}
	var codes [symbolCount]uint16
	if !p.code.alone {
		p.code.codes(&codes)
	}
	if p.parts == 1 {
		p.put(&w, &codes, z)
		return dst[:start+w.end()]
	}
	described := w.end()
	length := partLength(len(z), p.parts)
	p.table = binary.AppendUvarint(p.table[:0], uint64(p.parts))
	for first := 0; first < len(z); first += length {
		end := min(first+length, len(z))
		at := w.pos
		p.put(&w, &codes, z[first:end])
		if bytes := w.end() - at; end < len(z) {
			p.table = binary.AppendUvarint(p.table, uint64(bytes))
			p.table = state(p.table, first, end)
		}
	}
	// The table goes before the parts once their lengths are known.
	return slices.Insert(dst[:start+w.end()], start+described, p.table...)
}

// put writes the codes and raw bits of z.
func (p *classesPlan) put(w *bitWriter, codes *[symbolCount]uint16, z []uint64) {
	runs := p.code == &p.runs
	for i := 0; i < len(z); {
		var symbol int
		v, n := z[i], 1
		switch {
		case v != 0:
			symbol = symbolOf(v)
		case runs:
			n = zeros(z[i:])
			v, symbol = uint64(n), runOf(n)
		}
		i += n
		code, raw := p.code.bits(symbol), uint(rawBits[symbol])
		v &= 1<<raw - 1
		if code+raw <= putBitsMax {
			w.put(uint64(codes[symbol])|v<<code, code+raw)
		} else {
			w.put(uint64(codes[symbol]), code)
			w.putLong(v, raw)
		}
	}
}
