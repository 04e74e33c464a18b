package remotewrite

import (
	"strings"

	"varve/arrival"
)

// report gathers what of a request is refused.
type report struct {
	rejected arrival.Rejected
	examples []string
	limit    int
}

func (r *report) reset() {
	r.rejected = arrival.Rejected{}
	clear(r.examples)
	r.examples = r.examples[:0]
}

// add counts items under a reason. The error becomes an example while there are few.
func (r *report) add(reason arrival.Reason, items int, err error) {
	r.rejected[reason] += items
	r.example(err)
}

func (r *report) example(err error) { r.tell(err.Error()) }

// tell keeps an example while there are few.
func (r *report) tell(example string) {
	if len(r.examples) < r.limit {
		r.examples = append(r.examples, example)
	}
}

// text is what a sender reads: the counts by reason, then the examples that have
// room in bytesMax. Examples quote what came from the sender already, so the text
// holds no control characters.
func (r *report) text(rejected *arrival.Rejected, bytesMax int) string {
	var b strings.Builder
	b.WriteString("refused ")
	b.WriteString(rejected.String())
	b.WriteString("; the rest is written")
	for i, e := range r.examples {
		separator := "; for example: "
		if i > 0 {
			separator = "; "
		}
		if b.Len()+len(separator)+len(e) > bytesMax {
			break
		}
		b.WriteString(separator)
		b.WriteString(e)
	}
	return b.String()
}
