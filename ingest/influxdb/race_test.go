//go:build race

package influxdb_test

const raceEnabled = true
