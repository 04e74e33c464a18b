package chunk

// varbitSizes are the payload bits of upstream's varbit codes, by the number of
// ones they begin with.
var varbitSizes = [9]uint{0, 3, 6, 9, 12, 18, 25, 56, 64}

// varbitReader reads the bits of a histogram chunk's layout. Once broken it stays
// so and reads zeros.
type varbitReader struct {
	data   []byte
	bit    int
	broken bool
}

// bits returns the next n bits, at most 64.
func (r *varbitReader) bits(n uint) uint64 {
	if r.broken || r.bit+int(n) > 8*len(r.data) {
		r.broken = true
		return 0
	}
	var v uint64
	for range n {
		v = v<<1 | uint64(r.data[r.bit>>3]>>(7-r.bit&7)&1)
		r.bit++
	}
	return v
}

// size reads the prefix of a code.
func (r *varbitReader) size() uint {
	ones := 0
	for ones < len(varbitSizes)-1 && r.bits(1) == 1 {
		ones++
	}
	return varbitSizes[ones]
}

func (r *varbitReader) unsigned() uint64 {
	return r.bits(r.size())
}

func (r *varbitReader) signed() int64 {
	n := r.size()
	v := r.bits(n)
	if n > 0 && n < 64 && v > 1<<(n-1) {
		v -= 1 << n
	}
	return int64(v)
}
