package ints

import "math/bits"

// choose finds order and bias with the lowest estimated cost for y, of which no value
// but the first is in the header. len(y) >= 2.
func (e *Encoder) choose(y []int64) (order, int64) {
	costs := orderCosts(y)
	best, bestBias, bestCost := orderDelta, int64(0), 1<<62
	for _, o := range [...]order{orderDelta, orderOffset, orderTurn} {
		cost, bias := costs[o].bits(), int64(0)
		if o == orderTurn {
			cost += headerBits(y[1])
		} else if m := e.bias(y, o); m != 0 {
			if c := biasedCost(y, o, m) + headerBits(m); c < cost {
				bias, cost = m, c
			}
		}
		if cost < bestCost {
			best, bestBias, bestCost = o, bias, cost
		}
	}
	return best, bestBias
}

// headerBits are those of a value in the header.
func headerBits(v int64) int { return 8 * uvarintBytes(zigzag(v)) }

// orderCost estimates the bits that the residuals of an order take.
type orderCost struct {
	residuals int // how many there are
	filled    int // how many are not zero
	total     int // their bits, without leading zeros
}

func (c *orderCost) add(residual int64) {
	n := bits.Len64(zigzag(residual))
	c.total += n
	// 1 if n isn't 0, without a branch.
	c.filled += (n + 63) >> 6
}

// bits are those of the residuals, and for the lengths of these about one bit each,
// less where most are zero. Coding every order instead, and taking the smallest, was 0.2 %
// better for lists of 480 values of a node exporter and 1.7 % for lists of 20.
func (c *orderCost) bits() int {
	return c.total + min(6*c.filled, c.residuals) + c.filled
}

// orderCosts are the costs without a bias, in one pass over y.
func orderCosts(y []int64) [3]orderCost {
	offset, delta := orderCost{residuals: len(y) - 1}, orderCost{residuals: len(y) - 1}
	turn := orderCost{residuals: len(y) - 2}
	last, change := y[1], y[1]-y[0]
	offset.add(last)
	delta.add(change)
	for _, v := range y[2:] {
		c := v - last
		offset.add(v)
		delta.add(c)
		turn.add(c - change)
		last, change = v, c
	}
	return [...]orderCost{orderOffset: offset, orderDelta: delta, orderTurn: turn}
}

// biasedCost is the cost of orderOffset or orderDelta with a bias.
func biasedCost(y []int64, o order, bias int64) int {
	c := orderCost{residuals: len(y) - 1}
	if o == orderOffset {
		for _, v := range y[1:] {
			c.add(v - bias)
		}
		return c.bits()
	}
	last := y[0]
	for _, v := range y[1:] {
		c.add(v - last - bias)
		last = v
	}
	return c.bits()
}

// residual is the residual with index i of the order, i >= order.given().
func residual(y []int64, o order, i int) int64 {
	switch o {
	case orderOffset:
		return y[i]
	case orderDelta:
		return y[i] - y[i-1]
	default:
		return y[i] - 2*y[i-1] + y[i-2]
	}
}

// sampleMax bounds how many residuals the bias is the median of.
const sampleMax = 255

// bias is the middle of the residuals of an order, or of a sample of them.
func (e *Encoder) bias(y []int64, o order) int64 {
	e.sample = e.sample[:0]
	given := o.given()
	stride := (len(y) - given + sampleMax - 1) / sampleMax
	for i := given; i < len(y); i += stride {
		e.sample = append(e.sample, residual(y, o, i))
	}
	return median(e.sample)
}

// median returns the middle one of a, which it disorders. It is Hoare's selection: a
// is parted by a pivot, and the search goes on in the part with the middle.
func median(a []int64) int64 {
	middle := len(a) / 2
	low, high := 0, len(a)-1
	for low < high {
		pivot := a[(low+high)/2]
		i, j := low, high
		for i <= j {
			for a[i] < pivot {
				i++
			}
			for a[j] > pivot {
				j--
			}
			if i <= j {
				a[i], a[j] = a[j], a[i]
				i++
				j--
			}
		}
		switch {
		case middle <= j:
			high = j
		case middle >= i:
			low = i
		default:
			return a[middle]
		}
	}
	return a[middle]
}
