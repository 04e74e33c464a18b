package config_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/config"
)

const days = config.Keep(24 * time.Hour)

func TestRetentionRules(t *testing.T) {
	// Rules of every form are read, mean what they say for each resolution, and are written back the same.
	c, err := config.Read(write(t, `rollups: [{resolution: 5m}, {resolution: 1h}, {resolution: 1d}]
retention:
  - {match: '{env="staging"}', raw: 7d, 5m: 30d}
  - match: ['{__name__=~"job:.*"}', up]
    raw: 10y
  - {match: x, raw: 90d, 5m: 30d, 24h: 2y}
  - {match: y, 1h: 1d}
  - {raw: 2w, 60m: forever}
retention_size: 2TiB
`), nil)
	require.NoError(t, err)
	f := func(rule int, want ...config.Keep) {
		t.Helper()
		require.Equal(t, want, c.Retention[rule].Keeps(c.Resolutions()))
	}
	f(0, 7*days, 30*days, 30*days, 30*days)
	f(1, 3650*days, 3650*days, 3650*days, 3650*days)
	f(2, 90*days, 30*days, 90*days, 730*days)
	f(3, config.Forever, config.Forever, days, config.Forever)
	f(4, 14*days, 14*days, config.Forever, config.Forever)
	matchers, err := c.Retention[1].Matchers()
	require.NoError(t, err)
	require.Len(t, matchers, 2)
	require.Equal(t, labels.MatchRegexp, matchers[0][0].Type)
	require.Equal(t, 2*config.Size(1<<40), c.RetentionSize)
	again, err := config.Read(write(t, c.YAML()), nil)
	require.NoError(t, err)
	require.Equal(t, c, again)
}

func TestRetentionMistakes(t *testing.T) {
	// A policy that can't be kept is refused at its line, with the reason.
	f := func(text string, line int, contains string) {
		t.Helper()
		m := mistakes(t, text)
		require.Equal(t, line, m.List[0].Line, m.Error())
		require.Contains(t, m.Error(), contains)
		require.Contains(t, m.Error(), fmt.Sprintf("varve.yaml:%d: ", line))
	}
	f("retention:\n  - raw: 7d\n    10m: 30d\n", 3, `"10m" is not match, raw or one of the resolutions`)
	f("retention:\n  - raw: 7d\n    rwa: 30d\n", 3, `"rwa" is not match, raw`)
	f("retention:\n  - raw: 1d\n    5m: 30d\n", 2, "1d is too short where buckets are kept for 30d")
	f("retention:\n  - raw: 1d\n    1h: forever\n", 2, "1d is too short where buckets are kept for forever")
	f("retention:\n  - raw: 36h\n", 2, "use whole days")
	f("retention:\n  - raw: 0s\n", 2, "use whole days")
	f("retention:\n  - raw: 1h\n", 2, "use whole days")
	f("retention:\n  - raw: soon\n", 2, `"soon" is neither a duration such as 7d, 6w or 2y nor forever`)
	f("retention:\n  - raw: 7d\n    raw: 8d\n", 3, "twice")
	f("retention:\n  - match: '{env='\n    raw: 7d\n", 2, "is no selector")
	f("retention:\n  - match: [up, '{env=~\"(\"}']\n    raw: 7d\n", 2, "is no selector")
	f("retention:\n  - match: []\n    raw: 7d\n", 2, "must not be empty")
	f("retention:\n  - match: up\n", 2, "must say how long")
	f("retention:\n  - raw: 7d\n  - raw: 8d\n", 2, "the rules behind it are for none")
	f("retention:\n  - 7d\n", 2, "must be a section")
	f("retention: 7d\n", 1, "must be a list")
	f("retention_size: auto\n", 1, "out of bounds")
	f("compactor:\n  max_drop_share: 0\n", 2, "is out of bounds: use 0.01 to 1")
	// What has to be there for buckets need not be there without them.
	_, err := config.Read(write(t, "rollups: []\nretention: [{raw: 1d}]\n"), nil)
	require.NoError(t, err)
	_, err = config.Read(write(t, "retention: [{raw: 1d}]\n"), nil)
	require.NoError(t, err, "buckets are kept as long")
}

func TestRetentionIsReloaded(t *testing.T) {
	// Rules and size are in effect at once.
	current := config.Default()
	next, err := config.Read(write(t, "retention: [{raw: 90d}]\nretention_size: 1GiB\n"), nil)
	require.NoError(t, err)
	effective, waiting := config.Reloaded(current, next)
	require.Empty(t, waiting)
	require.Equal(t, next, effective)
}
