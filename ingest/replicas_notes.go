package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"varve/arrival"
)

// clusterNote is what survives a restart of a cluster: the replica that is elected,
// the cut, and a time that is no earlier than its last sample.
type clusterNote struct {
	elected   string
	cut, last int64
}

// errNote is the class of notes that cannot be read.
var errNote = errors.New("note is not readable")

// noteVersion is the first byte of a note.
const noteVersion = 1

// note saves what is to be known before samples of these clusters are written. The
// notes are durable with the samples.
func (rs *replicas) note(ctx context.Context, of []coming) error {
	if len(of) == 0 {
		return nil
	}
	rs.saving.Lock()
	defer rs.saving.Unlock()
	now := rs.door.now()
	var notes []Note
	said := make([]clusterNote, len(of))
	rs.mu.Lock()
	for i, k := range of {
		said[i] = rs.state(k.cluster, rs.latest(now))
		if said[i] != k.cluster.noted {
			notes = append(notes, Note{Name: rs.noteName(k.cluster.name), Value: said[i].append(nil, k.cluster.name)})
		}
	}
	gone := rs.gone
	rs.gone = nil
	for _, name := range gone {
		if rs.clusters[name] == nil {
			notes = append(notes, Note{Name: rs.noteName(name)})
		}
	}
	rs.mu.Unlock()
	if len(notes) == 0 {
		return nil
	}
	if err := rs.notes.SaveNotes(ctx, notes, false); err != nil {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.gone = append(rs.gone, gone...)
		return err
	}
	for i, k := range of {
		k.cluster.noted = said[i]
	}
	return nil
}

// state is what is to be noted of a cluster. Called with mu held.
func (*replicas) state(c *cluster, latest int64) clusterNote {
	n := clusterNote{elected: c.elected.name, cut: c.cutMillis, last: max(c.lastMillis, c.comingMillis)}
	for _, k := range c.owed {
		n.last = max(n.last, min(k.lastMillis, latest))
	}
	return n
}

func (rs *replicas) notePrefix() string { return rs.door.name + "/ha/" }

func (rs *replicas) noteName(cluster string) string {
	k := arrival.Seed(0).Hash([]byte(cluster))
	return fmt.Sprintf("%s%016x%016x", rs.notePrefix(), k.Hi, k.Lo)
}

// append appends the note of a cluster: the version, the names of cluster and replica
// with their lengths, the cut and the last time.
func (n clusterNote) append(dst []byte, cluster string) []byte {
	dst = append(dst, noteVersion)
	for _, s := range []string{cluster, n.elected} {
		dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...)
	}
	return binary.AppendVarint(binary.AppendVarint(dst, n.cut), n.last)
}

// parseClusterNote reads what append wrote.
func parseClusterNote(src []byte) (cluster string, n clusterNote, err error) {
	r := noteReader{src: src}
	r.version()
	cluster, n.elected = string(r.bytes()), string(r.bytes())
	n.cut, n.last = r.varint(), r.varint()
	if !r.ended() || cluster == "" || n.elected == "" || !utf8.ValidString(cluster) || !utf8.ValidString(n.elected) {
		return "", clusterNote{}, errNote
	}
	return cluster, n, nil
}

// readNotes goes on where the process before ended. The timeouts begin now.
func (rs *replicas) readNotes() error {
	return rs.notes.EachNote(rs.notePrefix(), func(name string, value []byte) error {
		of, n, err := parseClusterNote(value)
		if err != nil {
			return fmt.Errorf("note %s: %w", name, err)
		}
		c := rs.cluster(of)
		if c == nil {
			return nil
		}
		r := rs.replica(c, n.elected)
		rs.elect(c, r)
		c.cutMillis, c.lastMillis, c.comingMillis, c.noted = n.cut, n.last, n.last, n
		return nil
	})
}

// noteReader reads the parts of a note. After bytes that are not as they should be it
// reads zeros and has not ended well.
type noteReader struct {
	src []byte
	bad bool
}

func (r *noteReader) version() {
	if len(r.src) == 0 || r.src[0] != noteVersion {
		r.bad, r.src = true, nil
		return
	}
	r.src = r.src[1:]
}

func (r *noteReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.src)
	return r.skip(v, n)
}

func (r *noteReader) varint() int64 {
	v, n := binary.Varint(r.src)
	return int64(r.skip(uint64(v), n))
}

func (r *noteReader) skip(v uint64, n int) uint64 {
	if n <= 0 {
		r.bad, r.src = true, nil
		return 0
	}
	r.src = r.src[n:]
	return v
}

func (r *noteReader) fixed() uint64 {
	if len(r.src) < 8 {
		r.bad, r.src = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(r.src)
	r.src = r.src[8:]
	return v
}

// bytes returns bytes behind their length. They alias the note.
func (r *noteReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.src)) {
		r.bad, r.src = true, nil
		return nil
	}
	out := r.src[:n:n]
	r.src = r.src[n:]
	return out
}

// tag reads a byte that must be there.
func (r *noteReader) tag(want byte) {
	if len(r.src) == 0 || r.src[0] != want {
		r.bad, r.src = true, nil
		return
	}
	r.src = r.src[1:]
}

func (r *noteReader) ended() bool { return !r.bad && len(r.src) == 0 }
