// Package disk fills the disk under a server and gives the space back.
//
// The disk is a tmpfs of a few hundred megabytes, so that "no space left on
// device" is the real one, for the engine as for everything else. It needs the
// right to mount, as root or in a user namespace of its own, and says loudly when
// the machine gives neither.
//
// The package has tests only. They run one server at a time.
package disk
