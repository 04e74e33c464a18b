package snapshot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// Folders of the bucket.
const (
	filesFolder     = "varve/files/"
	manifestsFolder = "varve/snapshots/"
	claimsFolder    = "varve/uploads/"
	jsonEnding      = ".json"
)

// Names in Scratch, beside folders named by ULID.
const (
	lockName = "lock"
	// pruneEnding is of a file that says: a prune of this ID has a claim in the bucket.
	pruneEnding   = ".prune"
	verifyEnding  = ".verify"
	partialEnding = ".partial"
)

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// String returns it in hex.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Only lower case is taken.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) || strings.ToLower(string(text)) != string(text) {
		return fmt.Errorf("%d characters are no SHA-256 in hex", len(text))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// object is where the file with this content lies.
func (s Sum) object() string {
	text := s.String()
	return filesFolder + text[:2] + "/" + text
}

// sumOf is the opposite of object.
func sumOf(object string) (Sum, bool) {
	var s Sum
	rest, ok := strings.CutPrefix(object, filesFolder)
	if !ok || len(rest) < 3 {
		return s, false
	}
	err := s.UnmarshalText([]byte(rest[3:]))
	return s, err == nil && s.object() == object
}

var validID = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// ValidID says whether it can be the name of a snapshot. Only such names are made part of a path.
func ValidID(id string) bool { return validID.MatchString(id) }

func checkID(id string) error {
	if !ValidID(id) {
		return fmt.Errorf("%w: %.40q; see the list of snapshots for their names", ErrID, id)
	}
	return nil
}

// ids makes names, which ascend also within a millisecond.
type ids struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy
}

func newIDs() *ids { return &ids{entropy: ulid.Monotonic(rand.Reader, 0)} }

func (i *ids) next(now time.Time) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return ulid.MustNew(ulid.Timestamp(now), i.entropy).String()
}

// idOf takes the ID from the name of an object in a folder, "" if it has none.
func idOf(folder, object string) string {
	id, ok := strings.CutSuffix(strings.TrimPrefix(object, folder), jsonEnding)
	if !ok || !ValidID(id) || object != folder+id+jsonEnding {
		return ""
	}
	return id
}

func manifestObject(id string) string { return manifestsFolder + id + jsonEnding }
func claimObject(id string) string    { return claimsFolder + id + jsonEnding }

// component is one name of a path. Those that begin with a dot are this package's own.
var component = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// pathDepthMax is more than a data directory has.
const pathDepthMax = 6

// checkPath says what is wrong with a file's path in a manifest.
func checkPath(path string) error {
	parts := strings.Split(path, "/")
	if len(parts) > pathDepthMax {
		return fmt.Errorf("path %.80q is too deep", path)
	}
	for _, part := range parts {
		if !component.MatchString(part) {
			return fmt.Errorf("path %.80q is none of a data directory", path)
		}
	}
	return nil
}
