package remotewrite

import (
	"math"

	"varve/arrival"
)

// exemplarField reads a field of an Exemplar message that both protocols share and
// returns the index behind it, or -1. A timestamp of zero means that there is none.
func exemplarField(e *arrival.Exemplar, b []byte, i int, tag uint64) int {
	var x uint64
	switch tag >> 3 {
	case 2:
		x, i = fixed8At(b, i, tag)
		e.Value = math.Float64frombits(x)
	case 3:
		x, i = uint64At(b, i, tag)
		e.Ts, e.HasTs = int64(x), x != 0
	default:
		i = skip(b, i, tag)
	}
	return i
}
