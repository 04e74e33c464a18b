package opentsdb_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/forward/opentsdb"
)

// Names are written in OpenTSDB's characters and read back.
func TestName(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		require.Equal(t, want, string(opentsdb.AppendName(nil, text)))
		back, err := opentsdb.Name(want)
		require.NoError(t, err)
		require.Equal(t, text, back)
	}
	f("up", "up")
	f("node_cpu_seconds_total", "node__cpu__seconds__total")
	f("job:rate:sum", "job_.rate_.sum")
	f("-./0123456789azAZ", "-./0123456789azAZ")
	f("a b%", "a_20b_25")
	f("\x00\n\x0f", "_00_0A_0F")
	f("é", "_C3_A9")
	f("_.", "__.")
	f("_5F", "__5F")
	f("", "")
}

// What isn't written by AppendName is no name: two texts of the target never mean the same.
func TestNameRefuses(t *testing.T) {
	for _, s := range []string{"_", "a_", "_5", "_5F", "_3A", "_41", "_2D", "_c3", "_G0", "a b", "é", "a%", "_-"} {
		_, err := opentsdb.Name(s)
		require.Error(t, err, s)
	}
}

// Every text is mapped to names of the charset that read back, and every name that reads is the one of its text.
func FuzzName(f *testing.F) {
	for _, s := range []string{"up", "a_b:c", "é \x00\x0f", "_5F", "__", "_."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := string(opentsdb.AppendName(nil, s))
		require.Empty(t, strings.Trim(name, "-_./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
		back, err := opentsdb.Name(name)
		require.NoError(t, err)
		require.Equal(t, s, back)
		if text, err := opentsdb.Name(s); err == nil {
			require.Equal(t, s, string(opentsdb.AppendName(nil, text)))
		}
	})
}
