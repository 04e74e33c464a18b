// Package race tells tests whether the race detector watches them.
//
// It makes code about ten times as slow, allocations more and pools leaky, so that tests which
// measure those, or compare answers by the thousand, do less of it there. What they leave out has to
// be run without it: the Makefile's target scripts does that for the acceptance scripts.
package race
