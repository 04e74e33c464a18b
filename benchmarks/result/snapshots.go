package result

import (
	"fmt"
	"slices"
	"strings"
)

// Snapshots are copies of an archive in object storage: how fast they are made, what a day
// later is sent again, how fast they come back, and what writes feel of them.
type Snapshots struct {
	// Days are sealed before the first snapshot; of the day after them there are HotHours. Then
	// comes the rest of that day, which is sealed, and HotHours of the next.
	Days     int            `json:"days"`
	HotHours float64        `json:"hot_hours"`
	Replay   Replay         `json:"replay"`
	Made     []SnapshotMade `json:"made"`
	Moves    []SnapshotMove `json:"moves"`
	// Want is how many samples queries should find in what was restored, without stale markers,
	// Found how many they do.
	Want      int64           `json:"want"`
	Found     int64           `json:"found"`
	Stretches []SnapshotWrite `json:"stretches"`
	// EachSeconds is from the start of a snapshot beside writes to that of the next, at least, and UploadMiB what they send a second at
	// most, 0 for any rate. Elsewhere tells that the bucket is not on the disk of the data.
	EachSeconds float64 `json:"each_s"`
	UploadMiB   int     `json:"upload_mib"`
	Elsewhere   bool    `json:"elsewhere"`
}

// SnapshotMade is one snapshot.
type SnapshotMade struct {
	Name string `json:"name"`
	// Seconds are all, TookSeconds those without the sealing of what was due. CPU is the server's.
	Seconds     float64                   `json:"seconds"`
	TookSeconds float64                   `json:"took_s"`
	CPUSeconds  float64                   `json:"cpu_s"`
	Files       int                       `json:"files"`
	SentFiles   int                       `json:"sent_files"`
	Bytes       int64                     `json:"bytes"`
	SentBytes   int64                     `json:"sent_bytes"`
	HashedBytes int64                     `json:"hashed_bytes"`
	Families    map[string]SnapshotFamily `json:"families"`
}

// SnapshotFamily is the part of a column family; "" are files that are not tables.
type SnapshotFamily struct {
	Bytes     int64 `json:"bytes"`
	SentBytes int64 `json:"sent_bytes"`
}

// SnapshotMove is one run of a verb that reads a snapshot.
type SnapshotMove struct {
	Command    string  `json:"command"`
	Repetition int     `json:"repetition"`
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_s"`
	PeakBytes  int64   `json:"peak_bytes"`
}

// SnapshotWrite is a stretch of time in which samples came in. Its Work says what snapshots were
// made meanwhile, empty for none; its Server is the turn.
type SnapshotWrite struct {
	PassWrite
	// OfferedPerSecond is 0 for as many as are taken.
	OfferedPerSecond int   `json:"offered_per_s"`
	Snapshots        int   `json:"snapshots"`
	SentBytes        int64 `json:"sent_bytes"`
}

// snapshotGroups are column families by what becomes of them. What is not named is the rest.
var snapshotGroups = []struct {
	name     string
	families []string
	goal     string
}{
	{"sealed data: raw, clocks, rollups", []string{"raw", "clocks", rollupFamilies}, "below 10 %"},
	{"index and lookup: index, lookup, series, symbols, active, metadata", []string{"index", "lookup", "series", "symbols", "active", "metadata"}, "below 10 %"},
	{"hot", []string{"hot"}, ""},
	{"journal", []string{"journal"}, ""},
	{"the rest, and files that are no tables", nil, ""},
}

// groupOf is the place of a family in snapshotGroups.
func groupOf(family string) int {
	for i, g := range snapshotGroups {
		if slices.Contains(g.families, family) || slices.Contains(g.families, rollupFamilies) && strings.HasPrefix(family, rollupFamilies) {
			return i
		}
	}
	return len(snapshotGroups) - 1
}

// grouped adds up the families of a snapshot by group.
func (m SnapshotMade) grouped() []SnapshotFamily {
	sums := make([]SnapshotFamily, len(snapshotGroups))
	for name, f := range m.Families {
		sum := &sums[groupOf(name)]
		sum.Bytes, sum.SentBytes = sum.Bytes+f.Bytes, sum.SentBytes+f.SentBytes
	}
	return sums
}

// snapshots writes all tables of each server.
func (p *page) snapshots(run []Entry) {
	for _, e := range run {
		if e.Snapshots == nil || len(e.Snapshots.Made) == 0 {
			continue
		}
		s := e.Snapshots
		p.replay(s.Replay)
		where := "of the same disk"
		if s.Elsewhere {
			where = "on another disk or in memory"
		}
		fmt.Fprintf(p, "The bucket is a folder %s. %d days were written and sealed, then %.1f h of the next day, as they come from scrapes: this was the first\n"+
			"snapshot. After the rest of that day and as many hours of the following one came the second, which seals the day that is over. The third\n"+
			"follows at once.\n\n", where, s.Days, s.HotHours)
		p.snapshotsMade(e.Peer.Name, s)
		p.snapshotsSentAgain(s)
		p.snapshotsMoved(e.Peer.Name, s)
		p.snapshotsBeside(e.Peer.Name, s)
	}
}

// snapshotsMade writes how long each took.
func (p *page) snapshotsMade(name string, s *Snapshots) {
	var rows [][]string
	for _, m := range s.Made {
		rows = append(rows, []string{m.Name, number(m.TookSeconds), number(m.Seconds - m.TookSeconds), number(m.CPUSeconds), fmt.Sprint(m.Files), megabytes(m.Bytes),
			fmt.Sprint(m.SentFiles), megabytes(m.SentBytes), megabytes(m.HashedBytes), number(float64(m.SentBytes) / 1e6 / m.TookSeconds)})
	}
	p.table([]string{name, "took s", "sealing before s", "CPU s", "files", "MB", "files sent", "MB sent", "MB hashed", "MB/s sent"}, rows)
}

// snapshotsSentAgain writes what the second snapshot sent beyond what is new.
func (p *page) snapshotsSentAgain(s *Snapshots) {
	if len(s.Made) < 2 {
		return
	}
	p.WriteString("What the second sent, by what the files hold. \"Sent again\" is what was sent less what there is more of, also as a share of what there was.\n\n")
	before, after := s.Made[0].grouped(), s.Made[1].grouped()
	var rows [][]string
	for i, g := range snapshotGroups {
		share := "-"
		again := SentAgain(before[i], after[i])
		if before[i].Bytes > 0 {
			share = fmt.Sprintf("%.1f %%", 100*float64(again)/float64(before[i].Bytes))
		}
		rows = append(rows, []string{g.name, megabytes(before[i].Bytes), megabytes(after[i].Bytes), megabytes(after[i].Bytes - before[i].Bytes), megabytes(after[i].SentBytes), megabytes(again), share, g.goal})
	}
	p.table([]string{"files", "MB in the first", "MB in the second", "more MB", "MB sent", "MB sent again", "share", "goal"}, rows)
}

// SentAgain is what a snapshot sent of a group beyond what there is more of than in the one before.
func SentAgain(before, after SnapshotFamily) int64 {
	return max(0, after.SentBytes-max(0, after.Bytes-before.Bytes))
}

// snapshotsMoved writes how fast snapshots are read back.
func (p *page) snapshotsMoved(name string, s *Snapshots) {
	if len(s.Moves) == 0 {
		return
	}
	verdict := "all"
	if s.Found != s.Want {
		verdict = fmt.Sprintf("**%d of %d**", s.Found, s.Want)
	}
	fmt.Fprintf(p, "The second snapshot read back by the program's verbs, while the server idles and with nothing of the bucket in the kernel's cache; medians. A server on what\n"+
		"was restored answers with %s of the samples.\n\n", verdict)
	var rows [][]string
	var commands []string
	for _, m := range s.Moves {
		if slices.Contains(commands, m.Command) {
			continue
		}
		commands = append(commands, m.Command)
		of := func(figure func(SnapshotMove) float64) float64 {
			var values []float64
			for _, o := range s.Moves {
				if o.Command == m.Command {
					values = append(values, figure(o))
				}
			}
			return median(values)
		}
		seconds := of(func(o SnapshotMove) float64 { return o.Seconds })
		rows = append(rows, []string{"`" + m.Command + "`", number(seconds), megabytes(m.Bytes), number(float64(m.Bytes) / 1e6 / seconds),
			number(of(func(o SnapshotMove) float64 { return o.CPUSeconds })), mib(int64(of(func(o SnapshotMove) float64 { return float64(o.PeakBytes) })))})
	}
	p.table([]string{name, "took s", "MB", "MB/s", "CPU s", "peak MiB"}, rows)
}

// snapshotsBeside writes the stretches in order, each with snapshots beside the one without before it.
func (p *page) snapshotsBeside(name string, s *Snapshots) {
	if len(s.Stretches) == 0 {
		return
	}
	upload := ""
	if s.UploadMiB > 0 {
		upload = fmt.Sprintf(", at most %d MiB/s", s.UploadMiB)
	}
	fmt.Fprintf(p, "Then samples of now came in, by turns without and with snapshots, of which one began every %s s, or after the one before: into an emptied bucket, so that all is sent each time%s,\n"+
		"and into the bucket as it is. \"x\" is over the stretch without before. Goal: p99 at most twice the usual.\n\n", number(s.EachSeconds), upload)
	var rows [][]string
	idle := SnapshotWrite{}
	for _, w := range s.Stretches {
		x, x50, x99, work, sent := "-", "-", "-", w.Work, "-"
		if w.Work == "" {
			idle, work = w, "none"
		} else if idle.OfferedPerSecond == w.OfferedPerSecond {
			x, x50, x99 = ratio(w.SamplesPerSecond, idle.SamplesPerSecond), ratio(w.P50Millis, idle.P50Millis), ratio(w.P99Millis, idle.P99Millis)
			sent = megabytes(w.SentBytes)
		}
		offered := "all"
		if w.OfferedPerSecond > 0 {
			offered = thousands(float64(w.OfferedPerSecond))
		}
		rows = append(rows, []string{offered, work, fmt.Sprint(w.Snapshots), sent, thousands(w.SamplesPerSecond), x, fmt.Sprint(w.Requests),
			number(w.P50Millis), x50, number(w.P90Millis), number(w.P99Millis), x99, number(w.MaxMillis), number(w.CPUSeconds / w.Seconds), number(w.SyncP99)})
	}
	p.table([]string{name + ", k/s offered", "snapshots", "made", "MB sent", "k samples/s", "x", "requests", "p50 ms", "x", "p90 ms", "p99 ms", "x", "max ms", "cores", "fdatasync p99 ms"}, rows)
}

// megabytes writes bytes in MB, of a million: what rates in MB/s are made of.
func megabytes(bytes int64) string { return number(float64(bytes) / 1e6) }
