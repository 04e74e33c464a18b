package result

import (
	"fmt"
	"math"
	"slices"
)

// Blocks is the import of blocks of Prometheus' TSDB.
type Blocks struct {
	Replay Replay `json:"replay"`
	// RangeS is what one block covers.
	RangeS  int64         `json:"range_s"`
	Made    MadeBlocks    `json:"made"`
	Imports []BlockImport `json:"imports"`
}

// MadeBlocks is what was to be imported.
type MadeBlocks struct {
	Blocks int `json:"blocks"`
	// Series counts a series once for each block that it is in.
	Series  int64 `json:"series"`
	Chunks  int64 `json:"chunks"`
	Samples int64 `json:"samples"`
	// Stale are stale markers, NaN other samples that are no number. Samples are all.
	Stale      int64 `json:"stale"`
	NaN        int64 `json:"nan"`
	Bytes      int64 `json:"bytes"`
	IndexBytes int64 `json:"index_bytes"`
}

// BlockImport is one import of all blocks into an empty server or directory.
type BlockImport struct {
	Way string `json:"way"`
	// Command is what was run, with names for paths and addresses.
	Command    string  `json:"command"`
	Repetition int     `json:"repetition"`
	Samples    int64   `json:"samples"`
	Seconds    float64 `json:"seconds"`
	// ClientCPU is that of the program that imports, ServerCPU that of the server meanwhile, CPUSettled
	// both and what the server did afterwards, in seconds a million samples.
	ClientCPU       float64 `json:"client_cpu_s_per_m"`
	ServerCPU       float64 `json:"server_cpu_s_per_m"`
	CPUSettled      float64 `json:"cpu_settled_s_per_m"`
	ClientPeakBytes int64   `json:"client_peak_bytes"`
	ServerPeakBytes int64   `json:"server_peak_bytes"`
	// Written is what both caused to be written to the disk until the import ended.
	Written       float64 `json:"written_bytes_per_sample"`
	SettleSeconds float64 `json:"settle_s"`
	Remark        string  `json:"remark,omitempty"`
	Disk          Disk    `json:"disk"`
	// Want is how many samples queries should find, without stale markers, Found how many they do.
	Want  int64 `json:"want"`
	Found int64 `json:"found"`
}

// SamplesPerSecond is the rate.
func (i BlockImport) SamplesPerSecond() float64 { return float64(i.Samples) / i.Seconds }

// blocks writes a row for each way, the median of its repetitions.
func (p *page) blocks(run []Entry) {
	run = slices.DeleteFunc(slices.Clone(run), func(e Entry) bool { return e.Blocks == nil })
	if len(run) == 0 {
		return
	}
	made := run[0].Blocks.Made
	p.replay(run[0].Blocks.Replay)
	fmt.Fprintf(p, "They lie in %d blocks of %d h at most, written with upstream's own writers: %d chunks of XOR, %s MiB, of which %s MiB are indexes: %.3f B/sample.\n"+
		"Imported with nothing of them in the kernel's cache, into an empty server or directory; medians. Time and CPU are until the import's program ended, whose\n"+
		"CPU is the client's. Varve then has proved by count and digest of each series and day that all has arrived; vmctl proves nothing. \"Settled\" is once the\n"+
		"server has sealed, rolled up or merged what it was given. Then queries count all samples, without stale markers. \"x\" is the first row's samples/s\n"+
		"over this one's. Prometheus and Thanos take blocks by a copy of the files: that is no import, and there is nothing to measure.\n"+
		"Goal: 5 M samples/s on 2 cores.\n\n", made.Blocks, run[0].Blocks.RangeS/3600, made.Chunks, mib(made.Bytes), mib(made.IndexBytes), float64(made.Bytes)/float64(made.Samples))
	first := math.NaN()
	var rows [][]string
	for _, e := range run {
		for _, way := range e.Blocks.ways() {
			list := e.Blocks.importsBy(way)
			of := func(figure func(BlockImport) float64) float64 {
				var values []float64
				for _, i := range list {
					values = append(values, figure(i))
				}
				return median(values)
			}
			rate := of(BlockImport.SamplesPerSecond)
			if first != first {
				first = rate
			}
			rows = append(rows, []string{
				e.Peer.Name, "`" + list[0].Command + "`", fmt.Sprintf("%.2f", rate/1e6), ratio(first, rate), number(of(func(i BlockImport) float64 { return i.Seconds })),
				number(of(func(i BlockImport) float64 { return i.ClientCPU })), known(of(func(i BlockImport) float64 { return i.ServerCPU })),
				number(of(func(i BlockImport) float64 { return i.CPUSettled })), mib(int64(of(func(i BlockImport) float64 { return float64(i.ClientPeakBytes) }))),
				mib(int64(of(func(i BlockImport) float64 { return float64(i.ServerPeakBytes) }))), number(of(func(i BlockImport) float64 { return i.Written })),
				number(of(func(i BlockImport) float64 { return i.SettleSeconds })),
				fmt.Sprintf("%.3f", of(func(i BlockImport) float64 { return float64(i.Disk.Bytes-i.Disk.FixedBytes) / float64(i.Samples) })), found(list, made),
			})
		}
	}
	p.table([]string{"server", "import", "M samples/s", "x", "took s", "CPU s/M client", "server", "settled", "peak MiB client", "server", "written B/sample",
		"settled after s", "B/sample then", "samples found"}, rows)
	for _, e := range run {
		for _, i := range e.Blocks.Imports {
			if i.Remark != "" {
				fmt.Fprintf(p, "%s, repetition %d, did not settle: %s.\n\n", i.Way, i.Repetition, i.Remark)
			}
		}
	}
}

// found says in words whether all samples were found, each time.
func found(list []BlockImport, made MadeBlocks) string {
	for _, i := range list {
		switch {
		case i.Found == i.Want:
		case i.Found == i.Want-made.NaN:
			return fmt.Sprintf("all but %d NaN", made.NaN)
		default:
			return fmt.Sprintf("%d of %d", i.Found, i.Want)
		}
	}
	return "all"
}

// ways are the ways of importing, in order.
func (b *Blocks) ways() []string {
	var list []string
	for _, i := range b.Imports {
		if !slices.Contains(list, i.Way) {
			list = append(list, i.Way)
		}
	}
	return list
}

// importsBy are the repetitions of a way.
func (b *Blocks) importsBy(way string) []BlockImport {
	var list []BlockImport
	for _, i := range b.Imports {
		if i.Way == way {
			list = append(list, i)
		}
	}
	return list
}
