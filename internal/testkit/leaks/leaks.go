// Package leaks gives goroutines time to end before goleak counts them.
//
// What a test has closed may still have goroutines that are on their way out, and goleak waits for these for less than half a second, which is
// little on a machine with other work. One that never ends is found all the same.
//
// Only tests import this package.
package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds the wait for goroutines to end.
const patience = time.Minute

type patient struct {
	m       *testing.M
	options []goleak.Option
}

// Patient is the tests of a package for goleak.VerifyTestMain: their run ends when their goroutines have, or after a minute. The options
// are those that VerifyTestMain gets.
func Patient(m *testing.M, options ...goleak.Option) goleak.TestingM { return patient{m, options} }

// Run implements goleak.TestingM.
func (p patient) Run() int {
	code := p.m.Run()
	if code == 0 {
		_ = Find(p.options...) // goleak looks for itself.
	}
	return code
}

// Find returns an error with the goroutines that are left, after a minute if they don't end before. It belongs at the end of a TestMain
// that has more to do than goleak.VerifyTestMain.
func Find(options ...goleak.Option) error {
	for began := time.Now(); ; {
		if err := goleak.Find(options...); err == nil || time.Since(began) > patience {
			return err
		}
	}
}
