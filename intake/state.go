package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"varve/digest"
	"varve/durable"
)

// state is the file that lets a run go on where another one ended: the days that were proved to have arrived.
//
// It is written anew after each day that has samples: beside itself, synced, and renamed. A file that is lost costs time and nothing
// else, since what a target holds already is found there.
type state struct {
	path string
	stateFile
	// unwritten days are those since the file was written, the last time at written.
	unwritten int
	written   time.Time
}

// emptyWrittenEvery is how often the file is written while days are empty, of which tens of thousands may be in a row.
const emptyWrittenEvery = 10 * time.Second

type stateFile struct {
	Version int                 `json:"version"`
	Days    map[string]dayState `json:"days"`
}

const stateVersion = 1

// stateBytesMax bounds the file: a day takes about 300 bytes, so this is a thousand years.
const stateBytesMax = 128 << 20

// dayState is a day that is done.
type dayState struct {
	// Identity is that of the source's day and of what of it was asked for.
	Identity string        `json:"identity"`
	Way      way           `json:"way"`
	Series   uint64        `json:"series"`
	Digest   digest.Series `json:"digest"`
	Bytes    uint64        `json:"bytes"`
	Stored   uint64        `json:"stored,omitempty"`
	Repeated uint64        `json:"repeated,omitempty"`
	// What was refused, by reason: a rerun tells it again.
	RefusedSeries  map[string]Refusal `json:"refused_series,omitempty"`
	RefusedSamples map[string]uint64  `json:"refused_samples,omitempty"`
}

// way is how a day went to the target.
type way string

const (
	wayLeased  way = "leased"
	wayWritten way = "written"
	wayEmpty   way = "empty"
)

func readState(path string) (*state, error) {
	s := &state{path: path, stateFile: stateFile{Version: stateVersion, Days: map[string]dayState{}}}
	if path == "" {
		return s, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, stateBytesMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s.stateFile, err = parseState(b); err != nil {
		return nil, fmt.Errorf("state file %s: %w; move it away to begin anew: what has arrived is found where it is", path, err)
	}
	return s, nil
}

func parseState(b []byte) (f stateFile, err error) {
	if len(b) > stateBytesMax {
		return f, fmt.Errorf("more than %d bytes", stateBytesMax)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return f, err
	}
	if f.Version != stateVersion {
		return f, fmt.Errorf("version %d is not known, only %d", f.Version, stateVersion)
	}
	if f.Days == nil {
		f.Days = map[string]dayState{}
	}
	for name, day := range f.Days {
		switch day.Way {
		case wayLeased, wayWritten, wayEmpty:
		default:
			return f, fmt.Errorf("day %q went the way %q, which is not known", name, day.Way)
		}
		if len(day.RefusedSeries) == 0 {
			day.RefusedSeries = nil
		}
		if len(day.RefusedSamples) == 0 {
			day.RefusedSamples = nil
		}
		f.Days[name] = day
	}
	return f, nil
}

// done notes a day, durably unless it is empty.
func (s *state) done(day string, d dayState) error {
	s.Days[day] = d
	if s.unwritten++; d.Way == wayEmpty && time.Since(s.written) < emptyWrittenEvery {
		return nil
	}
	return s.write()
}

// write makes what was noted durable.
func (s *state) write() error {
	if s.path == "" || s.unwritten == 0 {
		return nil
	}
	b, err := json.MarshalIndent(s.stateFile, "", "\t")
	if err != nil {
		return err
	}
	if err := durable.Replace(s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("write state file: %w", err)
	}
	s.unwritten, s.written = 0, time.Now()
	return nil
}
