package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// Duration is a time span, written as Prometheus writes them.
type Duration time.Duration

// String returns the duration as a file would hold it.
func (d Duration) String() string { return model.Duration(d).String() }

// Set parses text such as 500ms, 15m or 7d.
func (d *Duration) Set(text string) error {
	v, err := model.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write it as 500ms, 30s, 15m, 2h or 7d", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes what Set parses.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// UnmarshalYAML parses as Set does and names the line of a mistake.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error { return setFrom(n, d) }

// Size is a number of bytes, or Auto.
type Size int64

// Auto is a size that is to be derived from the machine.
const Auto Size = -1

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

const autoSize = "auto"

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	switch s {
	case Auto:
		return autoSize
	case 0:
		return "0B"
	}
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Set parses text such as 64KiB, 2GiB or 4096.
func (s *Size) Set(text string) error {
	if text == autoSize {
		*s = Auto
		return nil
	}
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size: write it as 64KiB, 256MiB or 2GiB", text)
	}
	*s = Size(n * unit)
	return nil
}

// MarshalYAML writes what Set parses.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalYAML parses as Set does and names the line of a mistake.
func (s *Size) UnmarshalYAML(n *yaml.Node) error { return setFrom(n, s) }

func setFrom(n *yaml.Node, v interface{ Set(string) error }) error {
	var text string
	if err := n.Decode(&text); err != nil {
		return err
	}
	if err := v.Set(text); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s", n.Line, err)}}
	}
	return nil
}

// hidden is what a secret looks like wherever it is shown.
const hidden = "<secret>"

// Secret is a text that must not be seen. Every way of printing or encoding it
// gives "<secret>", or nothing if it is empty.
type Secret struct{ text string }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return s.text }

// String returns what may be shown.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return hidden
}

// Format shows the same for every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalYAML writes what may be shown.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// MarshalJSON writes what may be shown.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText writes what may be shown.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue logs what may be shown.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// IsZero reports whether there is no secret, so that YAML leaves it out.
func (s Secret) IsZero() bool { return s.text == "" }

// UnmarshalYAML takes the text. Its error doesn't repeat what stood there.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a secret must be a text", n.Line)}}
	}
	s.text = n.Value
	return nil
}
