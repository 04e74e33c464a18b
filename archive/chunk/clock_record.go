package chunk

import (
	"encoding/binary"
	"fmt"
)

// A clock on its own, shared by series under a key, is
//
//	samples uvarint | times | CRC32C of key and what is before, big endian
//
// with the times as docs/format/clock.md has them.

// AppendClock appends the on-disk value of a clock to dst and returns the extended
// buffer. times, Unix ms, ascend strictly, at least one. The checksum covers key, which
// must be the key that the clock is stored under. Nothing is kept.
func AppendClock(dst, key []byte, times []int64) []byte {
	begin := len(dst)
	dst = binary.AppendUvarint(dst, uint64(len(times)))
	dst = AppendTimes(dst, times)
	return appendChecksum(dst, key, begin)
}

// ParseClock appends the times of a clock to dst and returns them. Errors wrap ErrCorrupt.
func ParseClock(key, value []byte, dst []int64) ([]int64, error) {
	body, err := checkedBody(key, value)
	if err != nil {
		return dst, fmt.Errorf("parse clock: %w", err)
	}
	n, k := binary.Uvarint(body)
	if k <= 0 || n == 0 || n > sealedSamplesMax {
		return dst, fmt.Errorf("parse clock: %d samples: %w", n, ErrCorrupt)
	}
	at := len(dst)
	dst = append(dst, make([]int64, n)...)
	if err := new(TimesDecoder).Decode(body[k:], int(n), dst[at:]); err != nil {
		return dst[:at], fmt.Errorf("parse clock: %w", err)
	}
	return dst, nil
}
