package format

import (
	"encoding/binary"
	"hash/crc32"
)

// AppendNote appends the value of the record of a note, whose whole key is given: the note's own value, then 4 bytes CRC32C,
// little endian, of key and value.
func AppendNote(dst, key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, value...), noteChecksum(key, value))
}

// ParseNote returns the note's own value, which aliases the record.
func ParseNote(key, record []byte) ([]byte, error) {
	at := len(record) - 4
	if at < 0 {
		return nil, corrupt("note of %d bytes", len(record))
	}
	if want := binary.LittleEndian.Uint32(record[at:]); noteChecksum(key, record[:at]) != want {
		return nil, corrupt("checksum of a note")
	}
	return record[:at:at], nil
}

func noteChecksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}
