package ints

import (
	"encoding/binary"
	"math/bits"
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
	// halvesTokensMin is when a list is coded in halves, which the decoder reads in
	// turns: each token's place depends on the one before, and two such chains take
	// little longer than one. It costs about three bytes, of a kilobyte or more.
	halvesTokensMin = 2048
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
	code   *prefixCode // one of those below
	halves bool        // each half of the list has bits of its own
	size   int         // in bytes; with halves, it may be one less

	runs   prefixCode
	noRuns prefixCode
}

// plan finds the code for z, which isn't empty.
func (p *classesPlan) plan(z []uint64) {
	clear(p.runs.count[:])
	tokens, runs := p.runs.tally(z)
	single := len(z) - (tokens - runs) // zeros
	p.halves = tokens >= halvesTokensMin
	if p.halves {
		p.runs.splitRun(z)
	}
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
	if p.halves {
		p.size += 2 + uvarintBytes(uint64(size/8))
	}
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

// splitRun corrects the count for a run of zeros that the middle of z parts.
func (c *prefixCode) splitRun(z []uint64) {
	middle := len(z) / 2
	start, end := middle, middle
	for start > 0 && z[start-1] == 0 {
		start--
	}
	for end < len(z) && z[end] == 0 {
		end++
	}
	// A stretch of more than runMax zeros is several runs.
	for n := end - start; n > 0; n -= runMax {
		c.count[runOf(min(n, runMax))]--
	}
	for n := middle - start; n > 0; n -= runMax {
		c.count[runOf(min(n, runMax))]++
	}
	for n := end - middle; n > 0; n -= runMax {
		c.count[runOf(min(n, runMax))]++
	}
}

// append writes z as planned.
func (p *classesPlan) append(dst []byte, z []uint64) []byte {
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
	if p.halves {
		described := w.end()
		p.put(&w, &codes, z[:len(z)/2])
		first := w.end() - described
		// The length of the first half goes before it once it is known.
		var length [binary.MaxVarintLen64]byte
		n := binary.PutUvarint(length[:], uint64(first))
		copy(w.buf[described+n:], w.buf[described:described+first])
		copy(w.buf[described:], length[:n])
		w.pos += n
		z = z[len(z)/2:]
	}
	p.put(&w, &codes, z)
	return dst[:start+w.end()]
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
