package influxdb

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"varve/arrival"
)

// Twins are fields of one line whose keys differ and whose metrics bear one name, such as x.y and x-y: the sample of one would
// silently take the place of the other's. The first stays, and the others are refused, whether the archive knows their keys or
// not. In different lines such fields are one series, as those of other senders with its name are.
//
// Only a key with a byte that cleaning or an escape changes can have a twin: point.read marks those lines, and no other is looked at.

// cleanedField is what cleaning makes of the key of a field of a line.
type cleanedField struct {
	name  arrival.Key
	index int
}

// refuseTwins refuses the fields of a good line that are the twins of earlier ones.
func (d *decoder) refuseTwins(p *point) {
	measurement := d.body[p.start:unescaped(d.body[:p.keyEnd], p.start+1, ",")]
	bare := d.in.names.isBare(measurement)
	d.cleaned = d.cleaned[:0]
	for i := range p.fields {
		if f := &p.fields[i]; f.kind == kindNumber {
			d.scratch = d.in.names.appendField(d.scratch[:0], d.body[f.from:f.to], bare)
			d.cleaned = append(d.cleaned, cleanedField{d.seed.Hash(d.scratch), i})
		}
	}
	slices.SortFunc(d.cleaned, func(a, b cleanedField) int {
		return cmp.Or(cmp.Compare(a.name.Hi, b.name.Hi), cmp.Compare(a.name.Lo, b.name.Lo), cmp.Compare(a.index, b.index))
	})
	twins := 0
	for i, first := 1, 0; i < len(d.cleaned); i++ {
		if d.cleaned[i].name != d.cleaned[first].name {
			first = i
			continue
		}
		kept, twin := &p.fields[d.cleaned[first].index], &p.fields[d.cleaned[i].index]
		if bytes.Equal(d.body[kept.from:kept.to], d.body[twin.from:twin.to]) {
			continue // The same field twice, of which the last counts.
		}
		twin.kind, twin.bits = kindTwin, uint64(d.cleaned[first].index)
		twins++
	}
	for i := 0; twins > 0; i++ {
		if f := &p.fields[i]; f.kind == kindTwin {
			d.refuseTwin(p, &p.fields[f.bits], f)
			twins--
		}
	}
}

// refuseTwin counts a field that is not stored.
func (d *decoder) refuseTwin(p *point, kept, twin *field) {
	d.delivery.Refuse(arrival.ReasonInvalidLabels, 1, errSeen)
	if len(d.examples) >= d.in.limits.ErrorExamplesMax {
		return
	}
	measurement, _, fault := splitKey(d.body[p.start:p.keyEnd], nil)
	if fault != nil {
		return // That is told when the other fields are named.
	}
	key := d.body[kept.from:kept.to]
	name := d.in.names.metric(unescape(measurement, measurementEscapes), unescape(key, fieldEscapes), false)
	d.example(p, fmt.Errorf("fields %s and %s are both the metric %s", printable(key[:min(len(key), faultDigits)]),
		printable(d.body[twin.from:min(twin.to, twin.from+faultDigits)]), strconv.QuoteToASCII(name)))
}
