package access

import (
	"fmt"
	"strings"
)

// Group is a set of endpoints that are granted together.
type Group uint8

// The groups, in the order in which they are listed to users.
const (
	// Write takes samples in.
	Write Group = iota
	// Query evaluates PromQL and lists series and labels.
	Query
	// Federate hands out raw samples: federation and remote read.
	Federate
	// Metadata tells about metrics and about the server: metadata, status, the start page.
	Metadata
	// Admin changes or cancels what others do.
	Admin
	// Lifecycle reloads and stops the server.
	Lifecycle
	// Debug is profiling and the server's own metrics.
	Debug
	groupCount
)

var groupNames = [groupCount]string{"write", "query", "federate", "metadata", "admin", "lifecycle", "debug"}

// String returns the group's name as the configuration spells it.
func (g Group) String() string {
	if g >= groupCount {
		return fmt.Sprintf("group(%d)", uint8(g))
	}
	return groupNames[g]
}

// ParseGroup returns the group of that name.
func ParseGroup(name string) (Group, error) {
	for g, n := range groupNames {
		if n == name {
			return Group(g), nil
		}
	}
	return 0, fmt.Errorf("unknown group %q: use one of %s", name, strings.Join(groupNames[:], ", "))
}

type groupSet uint8

func (s groupSet) has(g Group) bool { return s&(1<<g) != 0 }
