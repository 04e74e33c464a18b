package archive_test

import "os"

// long tells whether VARVE_LONG=1 asks for all that tests can do.
func long() bool { return os.Getenv("VARVE_LONG") != "" }

// draws is how often a test at random, or with sizes that show no more when they are larger, does its work: less in a CI
// run, which is bounded and repeated with every commit.
func draws(short, all int) int {
	if long() {
		return all
	}
	return short
}
