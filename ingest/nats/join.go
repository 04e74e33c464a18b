package nats

import (
	"encoding/binary"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"varve/ingest"
)

// joiner makes one body of several messages of a payload. It keeps its memory and is for one goroutine.
type joiner struct {
	bytesMax int
	body     []byte
	decoded  []byte
	sent     []ingest.Sent
}

// join returns the body of as many messages as it holds, at least one, how many, and when these were sent where that can say the time of something. A body of several means what the messages mean one after the
// other; of bytes that mean nothing it makes no other meaning, as far as that can be seen without decoding them.
func (j *joiner) join(messages []*message) (body []byte, sent []ingest.Sent, n int) {
	j.sent = j.sent[:0]
	switch kind := messages[0].payload; {
	case len(messages) == 1:
	case kind == PayloadPrometheus:
		n = j.writeRequests(messages)
	case kind == PayloadInflux, kind == PayloadJSON:
		n = j.lines(messages)
	}
	if n <= 1 {
		one := messages[0]
		return one.data, append(j.sent[:0], ingest.Sent{To: len(one.data), Millis: one.sentMillis()}), 1
	}
	return j.body, j.sent, n
}

// lines puts an end of line between texts.
func (j *joiner) lines(messages []*message) (n int) {
	j.body = j.body[:0]
	for _, m := range messages {
		if len(j.body)+len(m.data)+1 > j.bytesMax {
			break
		}
		j.body = append(append(j.body, m.data...), '\n')
		j.sent = append(j.sent, ingest.Sent{To: len(j.body), Millis: m.sentMillis()})
		n++
	}
	return n
}

// expansionMax is more than a block of snappy can expand to: its densest element makes 64 bytes of 3.
const expansionMax = 22

// writeRequests joins messages of protocol buffers: one after the other they are one message with the elements of all. Each must be whole,
// lest one that is cut takes the beginning of the next for its end.
func (j *joiner) writeRequests(messages []*message) (n int) {
	j.decoded = j.decoded[:0]
	for _, m := range messages {
		size, err := snappy.DecodedLen(m.data)
		if err != nil || size > expansionMax*len(m.data) || len(j.decoded)+size > j.bytesMax {
			break
		}
		at := len(j.decoded)
		if cap(j.decoded)-at < size {
			j.decoded = append(make([]byte, 0, max(2*cap(j.decoded), at+size)), j.decoded...)
		}
		one, err := snappy.Decode(j.decoded[at:at+size:at+size], m.data)
		if err != nil || !wholeFields(one) {
			break
		}
		j.decoded = j.decoded[:at+size]
		n++
	}
	if n > 1 {
		j.body = appendStored(j.body[:0], j.decoded)
	}
	return n
}

// wholeFields says whether a message's fields end where it ends.
func wholeFields(b []byte) bool {
	for len(b) > 0 {
		n := skipField(b)
		if n <= 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// skipField is the length of the field that b begins with, not positive if there is none.
func skipField(b []byte) int {
	number, kind, tag := protowire.ConsumeTag(b)
	if tag <= 0 || kind == protowire.StartGroupType || kind == protowire.EndGroupType {
		return -1
	}
	n := protowire.ConsumeFieldValue(number, kind, b[tag:])
	if n < 0 {
		return -1
	}
	return tag + n
}

// storedBytes is how much one element of a block holds that is not compressed, of the kind whose length has two bytes.
const storedBytes = 1 << 16

// appendStored appends a block of snappy that holds b as it is: to compress what is decoded next would be in vain.
func appendStored(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	for len(b) > 0 {
		n := min(len(b), storedBytes)
		dst = append(dst, 61<<2, byte(n-1), byte((n-1)>>8))
		dst = append(dst, b[:n]...)
		b = b[n:]
	}
	return dst
}
