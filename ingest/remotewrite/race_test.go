//go:build race

package remotewrite_test

const raceEnabled = true
