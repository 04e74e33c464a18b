//go:build !race

package opentsdb_test

const raceEnabled = false
