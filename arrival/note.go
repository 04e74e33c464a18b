package arrival

// Note is a small record that an input keeps beside the samples, such as which of two replicas it listens to.
type Note struct {
	// Name is not empty and has at most 512 bytes. It begins with the input's own name and a slash.
	Name string
	// Value of nil removes the note. It has at most 1 MiB.
	Value []byte
}
