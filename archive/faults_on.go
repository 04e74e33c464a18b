//go:build varvefaults

package archive

import "os"

// The faults that VARVE_FAULT names. A build with the tag varvefaults is for the
// crash test alone: it breaks the promises of the archive on purpose.
var (
	faultAckEarly   = os.Getenv("VARVE_FAULT") == "ack-before-commit"
	faultNoSync     = os.Getenv("VARVE_FAULT") == "no-sync-power-cut"
	faultIndexApart = os.Getenv("VARVE_FAULT") == "index-apart"
	faultRawFirst   = os.Getenv("VARVE_FAULT") == "raw-before-rollup"
)
