package intake

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzState shows that any state file is read or refused, and that what is read is written the same.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"days":{"2026-01-02":{"identity":"x","way":"leased","series":1,"digest":{"samples":2},"bytes":3}}}`))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"days":{"x":{"way":"empty","refused_series":{},"refused_samples":{}}}}`))
	f.Add([]byte(`{"version":1,"days":{"x":{"way":"empty","refused_series":{"r":{"series":2,"example":"a"}},"refused_samples":{"s":3}}}}`))
	f.Add([]byte(`{"version":1,"days":{"x":{"way":"flown"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			return
		}
		out, err := json.Marshal(s)
		require.NoError(t, err)
		again, err := parseState(out)
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}
