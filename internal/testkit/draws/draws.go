// Package draws has property tests draw the same values whenever CI runs.
//
// What fails there fails because of a change then. With VARVE_LONG=1 they draw others each time, and -rapid.seed
// still overrides. To import it is all that a test has to do.
//
// Only tests import this package.
package draws

import (
	"flag"
	"os"

	_ "pgregory.net/rapid" // Its flags have to be there.
)

func init() {
	if os.Getenv("VARVE_LONG") != "" {
		return
	}
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
