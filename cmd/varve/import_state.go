package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"varve/durable"
)

// importState is how far files were sent to a target, as a state file has it. It is written after each piece that
// the server took, and replaced whole.
type importState struct {
	path string
	// Version is that of the file's form.
	Version int                    `json:"version"`
	Files   map[string]*importMark `json:"files"` // by absolute path and target
}

const importStateVersion = 1

// importMark is how far one file was sent.
type importMark struct {
	importIdentity
	// Offset is how much of it was sent, decompressed; Lines how many line ends that has.
	Offset int64 `json:"offset"`
	Lines  int64 `json:"lines"`
	// Samples were stored, Refused were not.
	Samples int64 `json:"samples"`
	Refused int64 `json:"refused"`
	// Family and Comments are what was said of the last metric family.
	Family   string `json:"family,omitempty"`
	Comments string `json:"comments,omitempty"`
	Done     bool   `json:"done"`
	// Open is how much of what was sent stands behind the last whole record, where the file ended within one; OpenLines how
	// many line ends that has.
	Open      int64 `json:"open,omitempty"`
	OpenLines int64 `json:"open_lines,omitempty"`
}

// importIdentity tells a file from others and from what it was.
type importIdentity struct {
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	// Head is the SHA-256 of the first HeadBytes.
	Head      string `json:"head"`
	HeadBytes int64  `json:"head_bytes"`
}

// headBytesMax is how much of a file's beginning identifies it.
const headBytesMax = 64 << 10

// identify reads the identity of an open file; headBytes, unless negative, is how much of the head to look at.
func identify(f *os.File, headBytes int64) (id importIdentity, err error) {
	st, err := f.Stat()
	if err != nil {
		return id, err
	}
	if headBytes < 0 {
		headBytes = min(headBytesMax, st.Size())
	}
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, 0, headBytes))
	if err != nil {
		return id, err
	}
	return importIdentity{Size: st.Size(), Modified: st.ModTime(), Head: hex.EncodeToString(h.Sum(nil)), HeadBytes: n}, nil
}

// errChanged says that a file isn't what it was when a part of it was sent.
var errChanged = errors.New("the file has changed since a part of it was sent; --restart sends all of it again, which harms nothing")

// check compares the file with what it was. A file that has grown is still the same.
func (m *importMark) check(f *os.File) (grown bool, err error) {
	now, err := identify(f, m.HeadBytes)
	switch {
	case err != nil:
		return false, err
	case now.Head != m.Head || now.HeadBytes != m.HeadBytes || now.Size < m.Size || now.Size == m.Size && !now.Modified.Equal(m.Modified):
		return false, errChanged
	}
	return now.Size > m.Size, nil
}

func readImportState(path string) (*importState, error) {
	s := &importState{path: path, Version: importStateVersion}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Files = map[string]*importMark{}
		return s, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state file %s: %w; remove it to begin anew", path, err)
	}
	if s.Version != importStateVersion {
		return nil, fmt.Errorf("state file %s has version %d, this program knows %d", path, s.Version, importStateVersion)
	}
	if s.Files == nil {
		s.Files = map[string]*importMark{}
	}
	return s, nil
}

// write replaces the state file, durably.
func (s *importState) write() (err error) {
	if s.path == "" {
		return nil
	}
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return durable.Replace(s.path, append(b, '\n'))
}
