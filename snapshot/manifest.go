package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Formats of a manifest. A reader refuses those that it doesn't know.
const (
	formatFirst = 1
)

const (
	// manifestBytesMax bounds what is read into memory: 300 000 files of about 200 bytes each, which is 20 TB in
	// table files of 64 MiB.
	manifestBytesMax = 64 << 20
	fileBytesMax     = 1 << 50
)

// Manifest says what a snapshot holds. In the bucket it is one object of JSON, whose bytes are exactly those that
// encode makes of it, so that no byte can change unnoticed.
type Manifest struct {
	Format int    `json:"format"`
	Varve  string `json:"varve"`
	ID     string `json:"id"`
	// Taken is the moment of the checkpoint, UTC, to the millisecond.
	Taken       time.Time `json:"taken"`
	Incarnation string    `json:"incarnation"` // hex
	// Last is the last sequence of the journal in it.
	Last    uint64   `json:"last"`
	Series  uint64   `json:"series"`
	Bytes   int64    `json:"bytes"`
	Stats   Stats    `json:"stats"`
	Days    []Day    `json:"days"`
	Cursors []Cursor `json:"cursors"`
	Files   []File   `json:"files"`
	// Root is a hash over all of the above, see root.
	Root Sum `json:"root"`
}

// File is a file of a snapshot.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 Sum    `json:"sha256"`
	Family string `json:"family,omitempty"`
}

// Day is a sealed day.
type Day struct {
	// Day is its beginning, UTC.
	Day     time.Time `json:"day"`
	Samples uint64    `json:"samples"`
	Bytes   uint64    `json:"bytes"`
	Digest  Digest    `json:"digest"`
	Sealed  time.Time `json:"sealed"`
}

// Digest is a number that JSON has as hex, since readers in other languages have no integers of 64 bits.
type Digest uint64

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(d)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != 16 {
		return fmt.Errorf("%d characters are no digest in hex", len(text))
	}
	*d = Digest(n)
	return nil
}

// Cursor is the place of an output in the journal.
type Cursor struct {
	Name string `json:"name"`
	Next uint64 `json:"next"`
	// Arrived is when the next record came in that it has not settled, zero without one.
	Arrived time.Time `json:"arrived"`
	// Samples are those it still has to send, as far as known.
	Samples uint64 `json:"samples"`
}

// Stats are what a Create did.
type Stats struct {
	Total
	// HashedBytes were read to find the content of files; the rest was known.
	HashedBytes int64 `json:"hashedBytes"`
	// Took is without what Before takes.
	Took time.Duration `json:"tookNanos"`
	// Families are parts of the total by column family; "" are files that are not tables.
	Families map[string]Total `json:"families"`
}

// Total counts files. Sent are those that the bucket did not hold; of two files with the same content one is reused.
type Total struct {
	Files       int   `json:"files"`
	Bytes       int64 `json:"bytes"`
	SentFiles   int   `json:"sentFiles"`
	SentBytes   int64 `json:"sentBytes"`
	ReusedFiles int   `json:"reusedFiles"`
	ReusedBytes int64 `json:"reusedBytes"`
}

func (t *Total) add(bytes int64, sent bool) {
	t.Files++
	t.Bytes += bytes
	if sent {
		t.SentFiles++
		t.SentBytes += bytes
	} else {
		t.ReusedFiles++
		t.ReusedBytes += bytes
	}
}

// encode gives a manifest its root and returns its bytes. What it was given is brought into the form that is read back.
func (m *Manifest) encode() ([]byte, error) {
	m.Format = formatFirst
	m.Taken = m.Taken.UTC().Truncate(time.Millisecond)
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	m.Days = slices.Clone(m.Days)
	for i := range m.Days {
		m.Days[i].Day, m.Days[i].Sealed = m.Days[i].Day.UTC(), m.Days[i].Sealed.UTC()
	}
	m.Cursors = slices.Clone(m.Cursors)
	for i := range m.Cursors {
		m.Cursors[i].Arrived = m.Cursors[i].Arrived.UTC()
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	var err error
	if m.Root, err = m.root(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(b) >= manifestBytesMax {
		return nil, fmt.Errorf("the manifest of %d files is larger than the %d bytes that would be read back", len(m.Files), manifestBytesMax)
	}
	return append(b, '\n'), nil
}

// ParseManifest reads a manifest. Errors are ErrFormat if a newer Varve made it, else ErrDamaged.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > manifestBytesMax {
		return m, fmt.Errorf("%w: a manifest of more than %d bytes", ErrDamaged, manifestBytesMax)
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if head.Format != formatFirst {
		return m, fmt.Errorf("%w %d: this version reads format %d; use the Varve that made it, or a newer one", ErrFormat, head.Format, formatFirst)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	root, err := m.root()
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if root != m.Root {
		return Manifest{}, fmt.Errorf("%w: the root of the manifest is %s, and its content has %s", ErrDamaged, m.Root, root)
	}
	again, err := json.Marshal(m)
	if err != nil || !bytes.Equal(append(again, '\n'), b) {
		return Manifest{}, fmt.Errorf("%w: the manifest is not written as Varve writes it", ErrDamaged)
	}
	return m, nil
}

// check says what can't be in a manifest, so that all who use one need not look.
func (m *Manifest) check() error {
	if !ValidID(m.ID) {
		return fmt.Errorf("id %.40q", m.ID)
	}
	if b, err := hex.DecodeString(m.Incarnation); err != nil || len(b) != 16 {
		return fmt.Errorf("incarnation %.40q", m.Incarnation)
	}
	if len(m.Files) == 0 {
		return fmt.Errorf("no files")
	}
	var bytes int64
	sizes := make(map[Sum]int64, len(m.Files))
	folders := map[string]bool{}
	for i, f := range m.Files {
		if err := checkPath(f.Path); err != nil {
			return err
		}
		if i > 0 && m.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %q is not in order", f.Path)
		}
		if f.Bytes < 0 || f.Bytes > fileBytesMax || bytes > math.MaxInt64-f.Bytes {
			return fmt.Errorf("file %q has %d bytes", f.Path, f.Bytes)
		}
		if size, ok := sizes[f.SHA256]; ok && size != f.Bytes {
			return fmt.Errorf("file %q has the content of another and not its size", f.Path)
		}
		if f.Family != "" && !component.MatchString(f.Family) {
			return fmt.Errorf("file %q is of family %.40q", f.Path, f.Family)
		}
		sizes[f.SHA256] = f.Bytes
		bytes += f.Bytes
		for at := 0; ; at++ {
			next := strings.IndexByte(f.Path[at:], '/')
			if next < 0 {
				break
			}
			at += next
			folders[f.Path[:at]] = true
		}
	}
	for _, f := range m.Files {
		if folders[f.Path] {
			return fmt.Errorf("%q is a file and a folder", f.Path)
		}
	}
	if bytes != m.Bytes {
		return fmt.Errorf("files have %d bytes together, not %d", bytes, m.Bytes)
	}
	return nil
}

// root is the hash of a Merkle tree as in RFC 6962: of the manifest without its files, then of each file, in
// order. So that one file can be shown to be of a snapshot without the others.
func (m *Manifest) root() (Sum, error) {
	facts := *m
	facts.Files, facts.Root = nil, Sum{}
	b, err := json.Marshal(facts)
	if err != nil {
		return Sum{}, err
	}
	level := make([]Sum, 0, len(m.Files)+1)
	level = append(level, sha256.Sum256(append([]byte{0}, b...)))
	for _, f := range m.Files {
		leaf := []byte{0}
		leaf = binary.BigEndian.AppendUint32(leaf, uint32(len(f.Path)))
		leaf = append(leaf, f.Path...)
		leaf = binary.BigEndian.AppendUint64(leaf, uint64(f.Bytes))
		leaf = append(leaf, f.SHA256[:]...)
		leaf = append(leaf, f.Family...)
		level = append(level, sha256.Sum256(leaf))
	}
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += 2 {
			if i+1 == len(level) {
				// One without a neighbour goes up as it is.
				next = append(next, level[i])
				continue
			}
			node := make([]byte, 0, 1+2*sha256.Size)
			node = append(node, 1)
			node = append(node, level[i][:]...)
			node = append(node, level[i+1][:]...)
			next = append(next, sha256.Sum256(node))
		}
		level = next
	}
	return level[0], nil
}

// unique are the files with different contents, by path of the first.
func unique(files []File) []File {
	seen := make(map[Sum]bool, len(files))
	out := make([]File, 0, len(files))
	for _, f := range files {
		if !seen[f.SHA256] {
			seen[f.SHA256] = true
			out = append(out, f)
		}
	}
	return out
}
