// Package packages tries what is around the program: the Debian package, the systemd unit, the
// container, the manual page and the completions of shells.
//
// A package is made of the binary under test, so nothing is compiled here. It is inspected as a file,
// then installed, upgraded, removed and purged in a clean Debian, once in a plain chroot, where the
// server is started as the unit says, and once in a container that systemd boots, where the unit
// itself is at work with all its restrictions. The Debian comes from the mirrors of the machine's own
// apt and is kept in the user's cache directory. Both need root; what a machine lacks skips a test loudly.
//
// Files for container engines are read by what reads them for real where that is here: no engine is
// started, no image fetched. The package has tests only. They run in sequence.
package packages
