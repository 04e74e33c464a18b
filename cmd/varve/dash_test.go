package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
)

// TestDashes shows that "-" reaches verbs as an argument and as the value of a flag, beside other flags and files.
func TestDashes(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		app := kingpin.New("x", "")
		top := app.Flag("top", "").Bool()
		c := app.Command("c", "")
		out := c.Flag("output", "").String()
		quiet := c.Flag("quiet", "").Bool()
		files := c.Arg("file", "").Strings()
		_, err := app.Parse(passDashes(app, args))
		require.NoError(t, err, "%q", args)
		got := []string{*out}
		if *quiet {
			got = append(got, "quiet")
		}
		if *top {
			got = append(got, "top")
		}
		require.Equal(t, want, strings.Join(append(got, *files...), " "))
	}
	f(" -", "c", "-")
	f("- a", "c", "--output", "-", "a")
	f("- -", "c", "--output", "-", "-")
	f("- -", "c", "--output=-", "-")
	f(" quiet a b -", "c", "--quiet", "-", "a", "b")
	f(" quiet top -", "--top", "c", "-", "--quiet")
	f(" a - b", "c", "--", "a", "-", "b")
	f("x a", "c", "--output", "x", "a")
	f(" a --output - -", "c", "-", "--", "a", "--output", "-")
}
