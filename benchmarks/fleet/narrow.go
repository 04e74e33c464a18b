package fleet

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Narrow is a ring with at most count of the series: those that are wanted, in their
// order, and then, while there is room, others that are spread over the rest. The
// receiver is left as it is; values are shared with it.
func (r *Ring) Narrow(count int, wanted func(labels.Labels) bool) *Ring {
	var keep, rest []int
	for i := range r.series {
		if wanted(r.series[i].labels) {
			keep = append(keep, i)
		} else {
			rest = append(rest, i)
		}
	}
	keep = keep[:min(len(keep), count)]
	room := min(count-len(keep), len(rest))
	for k := range room {
		keep = append(keep, rest[k*len(rest)/room])
	}
	slices.Sort(keep)
	narrow := *r
	narrow.series = make([]ringSeries, 0, len(keep))
	for _, i := range keep {
		narrow.series = append(narrow.series, r.series[i])
	}
	return &narrow
}
