package nats

import (
	"encoding/hex"
	"fmt"
	"sync"
	"unique"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/zeebo/xxh3"

	"varve/forward"
	"varve/forward/writerequest"
)

// packer cuts a batch into messages:
//
//  1. The series are put together by subject, in the order in which the subjects come first.
//  2. A message takes as many series of a subject as stay below the payload's bound, one at least.
//  3. If it is over the limit, its series are packed again with half the bound; one series alone is cut in two by its samples; one
//     sample alone is refused.
//
// The same batch, prepared by the same sender and below the same limit, gives the same messages.
type packer struct {
	payload *payload
	limit   int // bytes of a message's content
	publish func(subject, id string, content []byte) error
	id      string // of the batch
	out     *forward.Outcome

	groups  []group
	bySpace map[unique.Handle[string]]int
	plain   []byte
	packed  []byte
	scratch histogram.FloatHistogram
	err     error
}

// group is what goes to a subject.
type group struct {
	subject  string
	pieces   []piece
	families []*forward.FamilyMetadata
}

// piece is a stretch of the samples of a series of the batch: of those at from the floats and histograms named.
type piece struct {
	forward.Series
	at, float, histogram int
}

var packers = sync.Pool{New: func() any { return &packer{bySpace: map[unique.Handle[string]]int{}} }}

// pack publishes the batch. What can't be published is in the outcome.
func (k *packer) pack(b *forward.Batch, t *template) error {
	k.id, k.err = b.ID, nil
	for i := range b.Series {
		s := &b.Series[i]
		k.payload.skips(s, k.out)
		g := k.group(s.Form.(*form).subject)
		g.pieces = append(g.pieces, piece{Series: *s, at: i})
	}
	if k.payload.kind == PayloadPrometheus && k.payload.parts.Metadata {
		for i := range b.Families {
			// A family whose name makes a subject that is too long is advice that nobody misses.
			if subject, err := t.family(b.Families[i].Family); err == nil {
				g := k.group(unique.Make(subject))
				g.families = append(g.families, &b.Families[i])
			}
		}
	}
	for i := range k.groups {
		g := &k.groups[i]
		k.packFamilies(g)
		k.packPieces(g.subject, g.pieces, k.payload.bound(k.limit))
	}
	return k.err
}

func (k *packer) group(subject unique.Handle[string]) *group {
	i, ok := k.bySpace[subject]
	if !ok {
		i = len(k.groups)
		k.bySpace[subject] = i
		if i < cap(k.groups) {
			k.groups = k.groups[:i+1]
		} else {
			k.groups = append(k.groups, group{})
		}
		k.groups[i].subject = subject.Value()
	}
	return &k.groups[i]
}

// release gives the packer back, without what belongs to the batch.
func (k *packer) release() {
	for i := range k.groups {
		g := &k.groups[i]
		clear(g.pieces)
		clear(g.families)
		g.subject, g.pieces, g.families = "", g.pieces[:0], g.families[:0]
	}
	clear(k.bySpace)
	k.groups, k.publish, k.out, k.payload = k.groups[:0], nil, nil, nil
	packers.Put(k)
}

func (k *packer) packPieces(subject string, pieces []piece, bound int) {
	for len(pieces) > 0 && k.err == nil {
		n := k.fill(pieces, bound)
		var content []byte
		content, k.packed = k.payload.finish(k.plain, k.packed)
		switch {
		case len(k.plain) == 0:
		case len(content) <= k.limit:
			k.err = k.publish(subject, k.messageID(subject), content)
		case n > 1:
			k.packPieces(subject, pieces[:n], bound/2)
		default:
			k.halve(subject, &pieces[0], len(content), bound)
		}
		pieces = pieces[n:]
	}
}

// fill makes the content of as many pieces as stay below the bound, one at least, and returns how many.
func (k *packer) fill(pieces []piece, bound int) int {
	k.plain = k.plain[:0]
	for i := range pieces {
		before := len(k.plain)
		k.plain = k.payload.append(k.plain, &pieces[i].Series, &k.scratch)
		if len(k.plain) > bound && i > 0 {
			k.plain = k.plain[:before]
			return i
		}
	}
	return len(pieces)
}

// halve packs a piece that is too long as two, floats and exemplars before histograms.
func (k *packer) halve(subject string, p *piece, bytes, bound int) {
	first, second := *p, *p
	second.Exemplars = nil
	floats, histograms := len(p.Floats), len(p.Histograms)
	switch {
	case floats > 0 && histograms > 0:
		first.Histograms, second.Floats = nil, nil
	case floats > 1:
		first.Floats, second.Floats = p.Floats[:floats/2], p.Floats[floats/2:]
		second.float += floats / 2
	case histograms > 1:
		first.Histograms, second.Histograms = p.Histograms[:histograms/2], p.Histograms[histograms/2:]
		second.histogram += histograms / 2
	case len(p.Exemplars) > 0:
		// A message has no room for a sample with its exemplars: the sample is what matters.
		first.Exemplars = nil
		if p.Samples() > 0 {
			k.packPieces(subject, []piece{first}, bound)
		}
		return
	default:
		k.refuse(p, bytes)
		return
	}
	k.packPieces(subject, []piece{first, second}, bound/2)
}

// refuse names the one sample of a piece.
func (k *packer) refuse(p *piece, bytes int) {
	r := forward.Refusal{Series: p.at, Float: -1, Histogram: -1, Reason: fmt.Sprintf("its message would have %d bytes, and %d is the limit", bytes, k.limit)}
	if len(p.Floats) > 0 {
		r.Float = p.float
	} else {
		r.Histogram = p.histogram
	}
	k.out.Refusals = append(k.out.Refusals, r)
}

// packFamilies publishes metadata in messages of its own.
func (k *packer) packFamilies(g *group) {
	bound := k.payload.bound(k.limit)
	for families := g.families; len(families) > 0 && k.err == nil; {
		k.plain = k.plain[:0]
		n := 0
		for n < len(families) && (n == 0 || len(k.plain) < bound/2) {
			k.plain = writerequest.AppendFamily(k.plain, families[n])
			n++
		}
		var content []byte
		if content, k.packed = k.payload.finish(k.plain, k.packed); len(content) <= k.limit {
			k.err = k.publish(g.subject, k.messageID(g.subject), content)
		} else if n > 1 {
			half := *g
			half.families = families[:n/2]
			k.packFamilies(&half)
			n /= 2
		}
		families = families[n:]
	}
}

// messageID is the batch's ID with a hash of subject and content, so that of two messages with one ID the second is the first again. The content is hashed
// as it is before compression, which may come out in several ways.
func (k *packer) messageID(subject string) string {
	sum := xxh3.Hash128Seed(k.plain, xxh3.HashString(subject)).Bytes()
	return k.id + "-" + hex.EncodeToString(sum[:])
}
