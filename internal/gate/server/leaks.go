package server

import (
	"time"

	"go.uber.org/goleak"
)

// leaksPatience bounds the wait for goroutines that are on their way out.
const leaksPatience = time.Minute

// Leaks returns an error with the goroutines that are left. What was closed may have some that end a moment later, for which goleak itself waits
// less than half a second. It belongs at the end of TestMain.
func Leaks() error {
	began := time.Now()
	for {
		err := goleak.Find()
		if err == nil || time.Since(began) > leaksPatience {
			return err
		}
	}
}
