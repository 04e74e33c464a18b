package snapshot

import (
	"sync"
	"time"
)

// Phase is what a job is doing.
type Phase string

// Phases, in their order.
const (
	Sealing       Phase = "sealing"
	Checkpointing Phase = "checkpoint"
	Hashing       Phase = "hashing"
	Waiting       Phase = "waiting" // for a prune of another process
	Comparing     Phase = "comparing"
	Uploading     Phase = "uploading"
	Checking      Phase = "checking"
	Publishing    Phase = "manifest"
	Downloading   Phase = "downloading"
	Reading       Phase = "reading"
	Adopting      Phase = "adopting"
	Removing      Phase = "removing"
)

// Step is how far a job is.
type Step struct {
	// ID is the snapshot's, "" while there is none.
	ID    string `json:"id,omitempty"`
	Phase Phase  `json:"phase"`
	// Files and bytes of the phase. While uploading, total is what the snapshot has, and done is sent and reused.
	FilesDone  int   `json:"filesDone"`
	FilesTotal int   `json:"filesTotal"`
	BytesDone  int64 `json:"bytesDone"`
	BytesTotal int64 `json:"bytesTotal"`
	// BytesSent and BytesReused are of the whole job. Of a restore, sent is what was fetched.
	BytesSent   int64 `json:"bytesSent"`
	BytesReused int64 `json:"bytesReused"`
}

// Progress is told how far a job is: at the beginning and the end of each phase, and in between at most every
// stepEvery. One call at a time. It must return soon. May be nil.
type Progress func(Step)

const stepEvery = 100 * time.Millisecond

// tracker gathers what workers did.
type tracker struct {
	// tell may be called with the lock held: calls are one at a time.
	mu   sync.Mutex
	step Step
	last time.Time
	now  func() time.Time
	tell Progress
}

func (s *Store) track(id string, told ...Progress) *tracker {
	return &tracker{step: Step{ID: id}, now: s.o.Now, tell: func(step Step) {
		for _, f := range told {
			if f != nil {
				f(step)
			}
		}
	}}
}

// begin begins a phase.
func (t *tracker) begin(p Phase, files int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step.Phase, t.step.FilesDone, t.step.BytesDone = p, 0, 0
	t.step.FilesTotal, t.step.BytesTotal = files, bytes
	t.told()
}

// named sets the snapshot's ID.
func (t *tracker) named(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step.ID = id
}

// moved counts bytes; negative ones take back those of an attempt that failed.
func (t *tracker) moved(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step.BytesDone += bytes
	if t.now().Sub(t.last) >= stepEvery {
		t.told()
	}
}

// file counts a file as done, and bytes that moved had not counted.
func (t *tracker) file(bytes, sent, reused int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step.FilesDone++
	t.step.BytesDone += bytes
	t.step.BytesSent += sent
	t.step.BytesReused += reused
	if t.step.FilesDone == t.step.FilesTotal || t.now().Sub(t.last) >= stepEvery {
		t.told()
	}
}

func (t *tracker) told() {
	t.last = t.now()
	t.tell(t.step)
}
