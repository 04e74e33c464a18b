package remotewrite_test

import (
	"flag"
	"os"
)

// Property tests draw the same values whenever CI runs, so that what fails there fails because of a change, and others each time with
// VARVE_LONG=1; -rapid.seed still overrides.
func init() {
	if os.Getenv("VARVE_LONG") != "" {
		return
	}
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
