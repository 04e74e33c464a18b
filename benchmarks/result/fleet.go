package result

// Fleet is a fleet of recorded exporters on one server, from the first sample to
// the return from kill -9.
type Fleet struct {
	Replay Replay `json:"replay"`

	// SamplesPerSecond to PeakBytes are of the load: samples as fast as they are
	// taken, in requests of Batch samples over Connections connections. CPU is in
	// seconds a million samples, CPUSettled also what the server did to settle.
	Connections      int     `json:"connections"`
	Batch            int     `json:"batch"`
	SamplesPerSecond float64 `json:"samples_per_s"`
	P50Millis        float64 `json:"p50_ms"`
	P99Millis        float64 `json:"p99_ms"`
	CPU              float64 `json:"cpu_s_per_m"`
	CPUSettled       float64 `json:"cpu_settled_s_per_m"`
	PeakBytes        int64   `json:"peak_bytes"`
	// RSSBytes is the resident memory once settled.
	RSSBytes      int64   `json:"rss_bytes"`
	SettleSeconds float64 `json:"settle_s"`
	// Remark says what the server did not do to settle.
	Remark string `json:"remark,omitempty"`

	Disk  Disk   `json:"disk"`
	Exact *Exact `json:"exact,omitempty"`

	Labels []LabelPoint `json:"labels,omitempty"`
	// ReadySeconds is from the start after kill -9 until the server says that it
	// serves, AnsweredSeconds until it answered for all targets; negative if it did
	// not in time. Both are zero for a server that was not started by the benchmark.
	ReadySeconds    float64 `json:"ready_s"`
	AnsweredSeconds float64 `json:"answered_s"`
}

// Replay is what was sent.
type Replay struct {
	// Scrapes is how long the recordings are, at 1 s each; Positions how many steps
	// they give without a repetition; Repeated the share of the steps sent that had
	// increments which were sent before for the same target, 0 to below 1.
	Scrapes   int     `json:"scrapes"`
	Positions int     `json:"positions"`
	Repeated  float64 `json:"repeated"`
	// Groups are the recordings, with how many targets replay each.
	Groups  []ReplayGroup `json:"groups"`
	Targets int           `json:"targets"`
	Series  int           `json:"series"`
	// Samples are all that were sent, each distinct in series and time; Stale are the
	// stale markers among them.
	Samples     int64   `json:"samples"`
	Stale       int64   `json:"stale"`
	SpanSeconds float64 `json:"span_s"`
}

// ReplayGroup is the targets of one recording.
type ReplayGroup struct {
	Name    string `json:"name"`
	Targets int    `json:"targets"`
	Series  int    `json:"series"` // of one target
}

// Disk is a data directory, in bytes that the file system allocated.
type Disk struct {
	// Bytes is the whole directory, FixedBytes the part in logs and reserves, which
	// has a size of its own or goes away by itself, IndexBytes the part that names
	// series and finds them.
	Bytes      int64 `json:"bytes"`
	FixedBytes int64 `json:"fixed_bytes"`
	IndexBytes int64 `json:"index_bytes"`
	// Logged says that data is in the write-ahead log still, which therefore is not
	// among the fixed bytes.
	Logged bool `json:"logged,omitempty"`
	// Families are the sizes of Varve's column families.
	Families map[string]int64 `json:"families,omitempty"`
}

// Exact counts samples by what became of them, compared by all 64 bits.
type Exact struct {
	Sent  int64 `json:"sent"`
	Exact int64 `json:"exact"`
	// Changed have another value, of them ChangedNaN were or are some NaN.
	Changed    int64 `json:"changed"`
	ChangedNaN int64 `json:"changed_nan"`
	// Missing were not found, of them MissingNaN were sent as some NaN.
	Missing    int64 `json:"missing"`
	MissingNaN int64 `json:"missing_nan"`
	// Extra were never sent or came back twice.
	Extra      int64  `json:"extra"`
	Difference string `json:"difference,omitempty"`
}

// LabelPoint is one request for labels or series.
type LabelPoint struct {
	Path        string    `json:"path"`
	Count       int       `json:"count"` // entries of the answer
	ColdSeconds []float64 `json:"cold_s"`
	WarmSeconds []float64 `json:"warm_s"`
	// Identical says that the answer has the reference's entries.
	Identical bool   `json:"identical"`
	Error     string `json:"error,omitempty"`
}

// Deposit is what a fleet takes on disk once the server has settled.
type Deposit struct {
	// Name says what is special about the fleet.
	Name string `json:"name"`
	// LabelBytes is the mean length of a series' label names and values, LifeS how long
	// a target lives.
	LabelBytes float64 `json:"label_bytes"`
	LifeS      int64   `json:"life_s"`
	Replay     Replay  `json:"replay"`
	Remark     string  `json:"remark,omitempty"`
	Disk       Disk    `json:"disk"`
	RSSBytes   int64   `json:"rss_bytes"`
	// CPU is of the load, CPUSettled also of what came after it, in seconds a million
	// samples.
	CPU        float64 `json:"cpu_s_per_m"`
	CPUSettled float64 `json:"cpu_settled_s_per_m"`
}
