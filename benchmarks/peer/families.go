package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// dataFamilies are the column families of Varve that hold samples, their times, and
// what waits to become either. All others name series and find them.
var dataFamilies = map[string]bool{"journal": true, "hot": true, "raw": true, "clocks": true}

// largeFamilies are those that a settled fleet has most of its bytes in.
var largeFamilies = []string{"raw", "series", "symbols", "lookup", "index"}

// Families is what varve inspect says of the column families of a directory.
type Families struct {
	// Bytes are the sizes of their files by name, IndexBytes the sum of those that
	// name series and find them.
	Bytes      map[string]int64
	IndexBytes int64
	// Logged says that a family that should be large has keys and no file: what it
	// holds is in the write-ahead log still.
	Logged bool
}

// family is a line of the survey.
type family struct{ bytes, keys int64 }

// Families asks the varve program for the column families of a stopped server's
// directory.
func (s *Server) Families(ctx context.Context) (Families, error) {
	// The list of families is not cut by the limit of entries.
	output, err := exec.CommandContext(ctx, s.Spec.Binary, "inspect", "--limit=100", s.DataDir).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return Families{}, fmt.Errorf("inspect %s: %w: %s", s.Spec.Name, err, exit.Stderr)
		}
		return Families{}, fmt.Errorf("inspect %s: %w", s.Spec.Name, err)
	}
	parsed, err := parseFamilies(strings.NewReader(string(output)))
	if err != nil {
		return Families{}, fmt.Errorf("inspect %s: %w", s.Spec.Name, err)
	}
	return sumFamilies(parsed), nil
}

// sumFamilies adds up.
func sumFamilies(parsed map[string]family) Families {
	sums := Families{Bytes: map[string]int64{}}
	for name, f := range parsed {
		sums.Bytes[name] = f.bytes
		if !dataFamilies[name] {
			sums.IndexBytes += f.bytes
		}
	}
	for _, name := range largeFamilies {
		sums.Logged = sums.Logged || parsed[name].keys > 0 && parsed[name].bytes == 0
	}
	return sums
}

// parseFamilies reads the first table of varve inspect: quoted names, bytes, keys.
func parseFamilies(r io.Reader) (map[string]family, error) {
	families := map[string]family{}
	lines := bufio.NewScanner(r)
	inside := false
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) > 0 && fields[0] == "FAMILY":
			inside = true
		case inside && len(fields) == 0:
			inside = false
		case inside:
			name, f, err := parseFamily(fields)
			if err != nil {
				return nil, fmt.Errorf("parse families: %q: %w", lines.Text(), err)
			}
			families[name] = f
		default:
		}
	}
	if len(families) == 0 {
		return nil, errors.Join(errors.New("parse families: there is no table of families"), lines.Err())
	}
	return families, lines.Err()
}

// parseFamily reads a line of the table.
func parseFamily(fields []string) (name string, f family, err error) {
	if len(fields) != 3 {
		return "", family{}, fmt.Errorf("%d columns instead of 3", len(fields))
	}
	if name, err = strconv.Unquote(fields[0]); err != nil {
		return "", family{}, err
	}
	if f.bytes, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return "", family{}, err
	}
	f.keys, err = strconv.ParseInt(fields[2], 10, 64)
	return name, f, err
}
