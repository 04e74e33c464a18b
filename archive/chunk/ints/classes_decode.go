package ints

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// classEntry is an entry of a decoding table, which is looked up by the next bits of
// a stream. From the lowest bit: 7 bits for how many bits a code and its raw bits take
// together, a bit that is set for a run, 8 for the bits of the code, 8 for the symbol.
type classEntry uint32

const (
	entryTokenMask   = 1<<7 - 1
	entryRun         = 1 << 7
	entryCodeShift   = 8
	entrySymbolShift = 16
)

func entryOf(symbol int, codeBits uint) classEntry {
	e := classEntry(codeBits+uint(rawBits[symbol])) | classEntry(codeBits)<<entryCodeShift | classEntry(symbol)<<entrySymbolShift
	if symbol > 0 && symbol <= symbolRunMax {
		e |= entryRun
	}
	return e
}

// token is the number of bits of a code with its raw bits.
func (e classEntry) token() uint { return uint(e & entryTokenMask) }

// code is the number of bits of a code.
func (e classEntry) code() uint { return uint(e >> entryCodeShift & 0xf) }

// meaning is what a symbol stands for: a number to which the raw bits are added,
// which are those of mask.
type meaning struct{ base, mask uint64 }

// meanings are those of all symbols, as many as fit into a byte so that looking one
// up needs no check.
var meanings = func() (m [256]meaning) {
	for s := range symbolCount {
		raw := rawBits[s]
		m[s].mask = 1<<raw - 1
		switch {
		case s == 0:
		case s <= symbolRunMax:
			m[s].base = 1 << raw
		case s < symbolLarge:
			m[s].base = uint64(s - symbolExact + 1)
		default:
			m[s].base = uint64(2+s&1) << raw
		}
	}
	return m
}()

// value is what a token says whose bits are the lowest. It may have at most 64 bits.
func (e classEntry) value(bits uint64) uint64 {
	m := &meanings[uint8(e>>entrySymbolShift)]
	return m.base + bits>>(e>>entryCodeShift&63)&m.mask
}

// code is what is known of a code once its description is read, besides the table.
type code struct {
	tableBits uint // of the longest code
	tokenBits uint // of the longest code with its raw bits
}

// readCode reads the description of a code and fills the decoding table, which
// afterwards has 1<<tableBits entries.
func (d *Decoder) readCode(r *bitReader) (c code, err error) {
	var symbols, lengths [symbolCount]uint8
	var perLength [codeBitsMax + 1]int
	used, space := 0, 0
	next, length := 0, codeLengthStart
	for space < codeSpace {
		s, n := readSymbol(r, next, length)
		// n isn't negative: a code of no bits would have filled the space.
		if s < next || s >= symbolCount || n > codeBitsMax || r.overrun() {
			return c, fmt.Errorf("code with symbol %d of %d bits: %w", s, n, ErrCorrupt)
		}
		symbols[used], lengths[used] = uint8(s), uint8(n)
		used++
		perLength[n]++
		space += codeSpace >> n
		c.tableBits = max(c.tableBits, uint(n))
		c.tokenBits = max(c.tokenBits, uint(n)+uint(rawBits[s]))
		next, length = s+1, n
	}
	if space > codeSpace {
		return c, fmt.Errorf("code of %d symbols is overfull: %w", used, ErrCorrupt)
	}
	d.fillTable(symbols[:used], lengths[:used], &perLength, c.tableBits)
	return c, nil
}

// fillTable makes the decoding table of a complete canonical code. It grows by
// doubling: a table for codes of up to n bits, lowest bit first, is repeated to be one
// for n+1 bits, and then the codes of n+1 bits are put in.
func (d *Decoder) fillTable(symbols, lengths []uint8, perLength *[codeBitsMax + 1]int, tableBits uint) {
	var byLength [symbolCount]uint8
	var start [codeBitsMax + 2]int
	for n, count := range perLength {
		start[n+1] = start[n] + count
	}
	for i, n := range lengths {
		byLength[start[n]] = symbols[i]
		start[n]++
	}
	code, at := 0, 0
	for n := uint(0); n <= tableBits; n++ {
		if n > 0 {
			copy(d.table[1<<(n-1):1<<n], d.table[:1<<(n-1)])
			code <<= 1
		}
		for range perLength[n] {
			d.table[reverseCode(code, n)] = entryOf(int(byLength[at]), n)
			code++
			at++
		}
	}
}

// readSymbol reads one symbol of a description and its code length.
func readSymbol(r *bitReader, next, length int) (symbol, codeBits int) {
	if r.held < symbolBitsMax {
		r.fill()
	}
	symbol = next
	if r.take(1) == 1 {
		switch gap := int(r.take(gapBits)); gap {
		case gapFar:
			symbol = int(r.take(gapFarBits))
		case gapGroup:
			symbol = (next/symbolExact + 1) * symbolExact
		default:
			symbol = next + gap + 1
		}
	}
	switch bits.TrailingZeros64(^r.bits) {
	case 0:
		r.take(1)
		return symbol, length
	case 1:
		r.take(2)
		return symbol, length + 1
	case 2:
		r.take(3)
		return symbol, length - 1
	default:
		return symbol, int(r.take(7) >> 3)
	}
}

// decodeClasses fills out with the first residuals of a list of n, len(out) <= n,
// and returns the length of all of it if it read all.
func (d *Decoder) decodeClasses(src []byte, n int, out []int64) (used int, err error) {
	r := bitReader{src: src}
	c, err := d.readCode(&r)
	if err != nil {
		return 0, err
	}
	l := lane{bitReader: r, code: c, n: n, out: out}
	err = d.decodeRest(&l)
	return l.used(), err
}

// lane is a list, or a part of one, that is being decoded.
type lane struct {
	bitReader
	code
	n    int     // how many residuals there are in all
	out  []int64 // the first of them, as many as are wanted
	done int     // how many of out are there
}

// put takes a token: one residual, or a run of zeros.
func (l *lane) put(e classEntry, v uint64) error {
	if e&entryRun == 0 {
		l.out[l.done] = int64(v)
		l.done++
		return nil
	}
	if v > uint64(l.n-l.done) {
		return fmt.Errorf("run of %d zeros with %d to come: %w", v, l.n-l.done, ErrCorrupt)
	}
	end := min(l.done+int(v), len(l.out))
	clear(l.out[l.done:end])
	l.done = end
	return nil
}

// perWord is how many tokens certainly lie in the bits of a filled bitReader.
func (l *lane) perWord() int {
	if l.tokenBits == 0 {
		return filledBits
	}
	return filledBits / int(l.tokenBits)
}

// decodeRest decodes what is missing.
func (d *Decoder) decodeRest(l *lane) error {
	var err error
	if l.tokenBits <= filledBits {
		err = d.decodeOne(l)
	} else {
		err = d.decodeLong(l)
	}
	if err != nil {
		return err
	}
	return d.decodeEnd(l)
}

// decodeOne decodes while there is a whole word to read and room for what its bits
// hold. No token may have more than filledBits bits.
//
// A word is read for as many tokens as certainly lie in its bits.
func (d *Decoder) decodeOne(l *lane) error {
	perWord := l.perWord()
	mask := uint64(1)<<l.tableBits - 1
	src, out := l.src, l.out
	pos, bits, held, done := l.pos, l.bits, l.held, l.done
	for done+perWord <= len(out) && pos+wordBytes <= len(src) {
		bits |= binary.LittleEndian.Uint64(src[pos:]) << (held & 63)
		pos += int((63 - held) >> 3)
		held |= filledBits
		window := out[done : done+perWord]
		done += perWord
		for i := range window {
			e := d.table[bits&mask%codeSpace]
			v := e.value(bits)
			bits >>= e & 63
			held -= e.token()
			if e&entryRun != 0 {
				l.done = done - perWord + i
				if err := l.put(e, v); err != nil {
					return err
				}
				done = l.done
				break
			}
			window[i] = int64(v)
		}
	}
	l.pos, l.bits, l.held, l.done = pos, bits, held, done
	return nil
}

// decodeTwo is decodeOne for two lanes in turns, as long as both have room.
func (d *Decoder) decodeTwo(a, b *lane) error {
	perWord := a.perWord()
	mask := uint64(1)<<a.tableBits - 1
	aBits, aHeld, aPos := a.bits, a.held, a.pos
	bBits, bHeld, bPos := b.bits, b.held, b.pos
	for a.done+perWord <= len(a.out) && b.done+perWord <= len(b.out) {
		aOut := a.out[a.done:]
		bOut := b.out[b.done:]
		n := min(len(aOut), len(bOut))
		aOut, bOut = aOut[:n], bOut[:n]
		i := 0
		var ae, be classEntry
		var av, bv uint64
	pairs:
		for i+perWord <= n && aPos+wordBytes <= len(a.src) && bPos+wordBytes <= len(b.src) {
			aBits |= binary.LittleEndian.Uint64(a.src[aPos:]) << (aHeld & 63)
			aPos += int((63 - aHeld) >> 3)
			aHeld |= filledBits
			bBits |= binary.LittleEndian.Uint64(b.src[bPos:]) << (bHeld & 63)
			bPos += int((63 - bHeld) >> 3)
			bHeld |= filledBits
			for end := i + perWord; i < end; i++ {
				ae, be = d.table[aBits&mask%codeSpace], d.table[bBits&mask%codeSpace]
				av, bv = ae.value(aBits), be.value(bBits)
				aBits >>= ae & 63
				bBits >>= be & 63
				aHeld -= ae.token()
				bHeld -= be.token()
				if (ae|be)&entryRun != 0 {
					break pairs
				}
				aOut[i] = int64(av)
				bOut[i] = int64(bv)
			}
		}
		a.done += i
		b.done += i
		if (ae|be)&entryRun == 0 {
			break
		}
		if err := a.put(ae, av); err != nil {
			return err
		}
		if err := b.put(be, bv); err != nil {
			return err
		}
	}
	a.bits, a.held, a.pos = aBits, aHeld, aPos
	b.bits, b.held, b.pos = bBits, bHeld, bPos
	return nil
}

// decodeLong is decodeOne for tokens of any size. Instead of holding bits it goes by the
// number of the next one, and reads a word for a code and one for its raw bits.
func (d *Decoder) decodeLong(l *lane) error {
	mask := uint64(1)<<l.tableBits - 1
	src, out, done := l.src, l.out, l.done
	bit := uint(8*l.pos) - l.held
	for done < len(out) && int(bit>>3)+2*wordBytes < len(src) {
		e := d.table[binary.LittleEndian.Uint64(src[bit>>3:])>>(bit&7)&mask%codeSpace]
		raw := wordAt(src, bit+e.code())
		bit += e.token()
		m := &meanings[uint8(e>>entrySymbolShift)]
		v := m.base + raw&m.mask
		if e&entryRun != 0 {
			l.done = done
			if err := l.put(e, v); err != nil {
				return err
			}
			done = l.done
			continue
		}
		out[done] = int64(v)
		done++
	}
	l.pos, l.bits, l.held, l.done = int(bit>>3), 0, 0, done
	l.fill()
	l.take(bit & 7)
	return nil
}

// decodeEnd decodes what is missing, up to the end of the bytes.
func (d *Decoder) decodeEnd(l *lane) error {
	mask := uint64(1)<<l.tableBits - 1
	for l.done < len(l.out) && !l.overrun() {
		l.fill()
		e := d.table[l.bits&mask%codeSpace]
		l.take(e.code())
		raw := l.takeLong(e.token() - e.code())
		if err := l.put(e, meanings[uint8(e>>entrySymbolShift)].base+raw); err != nil {
			return err
		}
	}
	if l.overrun() {
		return fmt.Errorf("codes cut off: %w", ErrCorrupt)
	}
	return nil
}
