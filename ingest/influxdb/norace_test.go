//go:build !race

package influxdb_test

const raceEnabled = false
