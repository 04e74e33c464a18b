package testkit

import (
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"

	"varve/internal/testkit/race"
)

// scriptsRaced is how many of upstream's script files there are for one that runs under the race detector.
const scriptsRaced = 4

// Scripts runs upstream's acceptance scripts below t, which is to be handed to promqltest: all of them, and under the race
// detector, which sees the same code with each, one file of four.
func Scripts(t promqltest.TBRun) promqltest.TBRun { return &someScripts{TBRun: t} }

type someScripts struct {
	promqltest.TBRun
	files int
}

// Run runs the script file of the name, if it is one of those to be run.
func (s *someScripts) Run(name string, f func(*testing.T)) bool {
	s.files++
	if race.Enabled && s.files%scriptsRaced != 0 {
		return true
	}
	return s.TBRun.Run(name, f)
}
