package api

// ExpiredLevel is what expired of samples, or of the buckets of a resolution.
type ExpiredLevel struct {
	// Level is raw, or the length of a bucket.
	Level string `json:"level"`
	// Before is the first day that is kept. Days had something.
	Before string `json:"before"`
	Days   int    `json:"days"`
	// Samples or buckets, and bytes of keys and values before compression.
	Samples uint64 `json:"samples"`
	Bytes   uint64 `json:"bytes"`
}

// TrimmedDay is what went of a day because it was past the age of some series.
type TrimmedDay struct {
	Day       string `json:"day"`
	Series    uint64 `json:"series"`
	Samples   uint64 `json:"samples"`
	Exemplars uint64 `json:"exemplars"`
	Buckets   uint64 `json:"buckets"`
	Bytes     int64  `json:"bytes"`
}

// RetentionStatus is what the rules of retention keep, and what they are about to free.
type RetentionStatus struct {
	// Today is the day by which ages are counted: that of the clock, but at most the one behind the newest
	// day that has samples. Empty before there are any.
	Today  string           `json:"today"`
	Rules  []RetentionRule  `json:"rules"`
	Levels []RetentionLevel `json:"levels"`
	// DiskBytes are those of table files, SizeLimit is retention_size, 0 for none.
	DiskBytes uint64 `json:"diskBytes"`
	SizeLimit uint64 `json:"sizeLimit"`
	// Dropping tells that what has expired waits for queries that began before.
	Dropping bool           `json:"dropping"`
	Next     *RetentionPass `json:"next,omitempty"`
	// Kept says which samples that are past their age must stay for now, and why; empty if none do.
	Kept string `json:"kept"`
}

// RetentionRule is a rule with what it is about to free.
type RetentionRule struct {
	// Match is what it is for; empty for the series that no rule is for.
	Match string          `json:"match"`
	Keep  []RetentionKeep `json:"keep"`
}

// RetentionKeep is how long a rule keeps samples, or the buckets of a resolution.
type RetentionKeep struct {
	Level string `json:"level"`
	For   string `json:"for"`
	// Before is the first day that it keeps, absent if it keeps all.
	Before string `json:"before,omitempty"`
	// Series have something that is older and still stored: samples or buckets, and their bytes before
	// compression. Where a day is too old for the series of some rules alone they are shared out by the number
	// of series.
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
	Bytes   uint64 `json:"bytes"`
}

// RetentionLevel is what has expired of samples, or of the buckets of a resolution.
type RetentionLevel struct {
	Level string `json:"level"`
	// Floor is the first day that has not expired for all series, absent if nothing has.
	Floor string `json:"floor,omitempty"`
}

// RetentionPass is what expires when the compactor looks next.
type RetentionPass struct {
	Why    string           `json:"why"`
	Floors []RetentionLevel `json:"floors"`
	// Trims are the days of which some series go.
	Trims []string `json:"trims"`
	// Bytes of TotalBytes, both before compression.
	Bytes      uint64 `json:"bytes"`
	TotalBytes uint64 `json:"totalBytes"`
	// Waits says why it waits to be forced, empty if it doesn't.
	Waits string `json:"waits"`
}
