package forward

import (
	"testing"

	"github.com/stretchr/testify/require"
	"varve/archive"
)

// TestOverBytesIsOfTheRead shows that a read is over the limit by what came behind it, not by what waits before it: the newest is kept though the
// oldest can't be settled.
func TestOverBytesIsOfTheRead(t *testing.T) {
	l := newLedger()
	s := &session{output: &output{Output: Output{BacklogBytes: 250}, f: &Options{}}, ledger: l, source: fixedLag{bytes: 500}}
	var over []bool
	for range 5 {
		r := &read{bytes: 100}
		l.begin(r, 1, archive.Tally{})
		over = append(over, s.overBytes(r))
	}
	require.Equal(t, []bool{true, true, true, false, false}, over)
}

// fixedLag is a source that is so far behind.
type fixedLag struct {
	Source
	bytes uint64
}

func (s fixedLag) Lag() (archive.Lag, error) { return archive.Lag{Bytes: s.bytes}, nil }
