//go:build !varvefaults

package archive

// Seeded faults exist in builds with the tag varvefaults only: the crash test
// must find each of them, or its silence means nothing.
const (
	faultAckEarly   = false
	faultNoSync     = false
	faultIndexApart = false
	faultRawFirst   = false
)
