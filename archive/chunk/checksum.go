package chunk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// Every value that a key stands for ends with the CRC32C (Castagnoli) of the key and of all
// bytes before it, big endian: a value under a wrong key is as broken as one with a flipped bit.
const checksumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// appendChecksum appends the checksum of a value that dst has from index start on.
func appendChecksum(dst, key []byte, start int) []byte {
	return binary.BigEndian.AppendUint32(dst, checksum(key, dst[start:]))
}

// checkedBody returns the value, which holds a byte at least and no more than 32 bits count,
// without its checksum, which must be right.
func checkedBody(key, value []byte) ([]byte, error) {
	if len(value) <= checksumBytes || uint64(len(value)) > math.MaxUint32 {
		return nil, fmt.Errorf("%d bytes: %w", len(value), ErrCorrupt)
	}
	body := value[:len(value)-checksumBytes]
	want := binary.BigEndian.Uint32(value[len(body):])
	if have := checksum(key, body); have != want {
		return nil, fmt.Errorf("checksum %08x, stored %08x: %w", have, want, ErrCorrupt)
	}
	return body, nil
}

// versionedBody is checkedBody of a value whose first byte is its version. The error wraps ErrVersion
// if the value is whole but of another version.
func versionedBody(key, value []byte, version byte) ([]byte, error) {
	body, err := checkedBody(key, value)
	if err == nil && body[0] != version {
		return nil, fmt.Errorf("version %d: %w", body[0], ErrVersion)
	}
	return body, err
}
