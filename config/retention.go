package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// RetentionRule says how long the series that it matches are kept. In the file it is a map of match and of
// raw and resolutions.
type RetentionRule struct {
	// Match are selectors of which a series has to match one; without any, every series does.
	Match []string
	// Keep is how long, by "raw" and by resolutions as the file writes them.
	Keep map[string]Keep
}

// The keys of a rule besides resolutions.
const (
	matchKey = "match"
	rawKey   = "raw"
)

// Keep is how long something is kept: whole days, or Forever.
type Keep time.Duration

// Forever is how long is kept what never expires.
const Forever Keep = math.MaxInt64

const foreverText = "forever"

// String returns what Set parses.
func (k Keep) String() string {
	if k == Forever {
		return foreverText
	}
	return Duration(k).String()
}

// Set parses text such as 7d, 2y or forever.
func (k *Keep) Set(text string) error {
	if text == foreverText {
		*k = Forever
		return nil
	}
	var d Duration
	if err := d.Set(text); err != nil {
		return fmt.Errorf("%q is neither a duration such as 7d, 6w or 2y nor forever", text)
	}
	*k = Keep(d)
	return nil
}

// MarshalYAML writes what Set parses.
func (k Keep) MarshalYAML() (any, error) { return k.String(), nil }

// UnmarshalYAML parses as Set does and names the line of a mistake.
func (k *Keep) UnmarshalYAML(n *yaml.Node) error { return setFrom(n, k) }

// UnmarshalYAML reads the rule, of which only match has a name that is known beforehand.
func (r *RetentionRule) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a rule must be a section", n.Line)}}
	}
	*r = RetentionRule{Keep: map[string]Keep{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value != matchKey {
			var k Keep
			if err := k.UnmarshalYAML(value); err != nil {
				return err
			}
			if _, twice := r.Keep[key.Value]; twice {
				return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is there twice", key.Line, key.Value)}}
			}
			r.Keep[key.Value] = k
			continue
		}
		if value.Kind == yaml.ScalarNode {
			r.Match = []string{value.Value}
		} else if err := value.Decode(&r.Match); err != nil {
			return err
		}
		if len(r.Match) == 0 {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a match must not be empty: leave it out for every series", value.Line)}}
		}
	}
	return nil
}

// MarshalYAML writes the rule as a file would hold it.
func (r RetentionRule) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	add := func(key string, value any) error {
		child := &yaml.Node{}
		if err := child.Encode(value); err != nil {
			return err
		}
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, child)
		return nil
	}
	if len(r.Match) > 0 {
		if err := add(matchKey, r.Match); err != nil {
			return nil, err
		}
	}
	for _, key := range r.keys() {
		if err := add(key, r.Keep[key]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// keys are those of Keep, the finest first; what is no duration comes last.
func (r *RetentionRule) keys() []string {
	keys := make([]string, 0, len(r.Keep))
	for key := range r.Keep {
		keys = append(keys, key)
	}
	length := func(key string) Duration {
		var d Duration
		if key != rawKey && d.Set(key) != nil {
			return math.MaxInt64
		}
		return d
	}
	slices.SortFunc(keys, func(x, y string) int {
		if c := length(x) - length(y); c != 0 {
			return int(max(min(c, 1), -1))
		}
		return strings.Compare(x, y)
	})
	return keys
}

// Keeps returns how long the rule keeps samples, and then buckets of each of the resolutions, which ascend. What it
// doesn't name it keeps as long as the finer one that it keeps longest; samples, if it doesn't name them, forever.
func (r *RetentionRule) Keeps(resolutions []Duration) []Keep {
	raw, named := r.Keep[rawKey]
	if !named {
		raw = Forever
	}
	out, longest := []Keep{raw}, raw
	for _, resolution := range resolutions {
		keep := longest
		for key, k := range r.Keep {
			var d Duration
			if key != rawKey && d.Set(key) == nil && d == resolution {
				keep = k
			}
		}
		out, longest = append(out, keep), max(longest, keep)
	}
	return out
}

// Matchers parses the selectors of the rule.
func (r *RetentionRule) Matchers() ([][]*labels.Matcher, error) {
	var out [][]*labels.Matcher
	for _, text := range r.Match {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no selector: %w", text, err)
		}
		out = append(out, ms)
	}
	return out, nil
}

// Resolutions are the lengths of buckets.
func (c *Config) Resolutions() []Duration {
	var out []Duration
	for _, r := range c.Rollups {
		out = append(out, r.Resolution)
	}
	return out
}

// retentionRulesMax is how many rules there may be.
const retentionRulesMax = 250

// rawKeptMin is how long samples must be kept of which buckets are kept longer: a day is rolled up when the
// next one is sealed.
const rawKeptMin = Keep(2 * day)

func (v *validator) checkRetention(c *Config) {
	if len(c.Retention) > retentionRulesMax {
		v.mistake("retention", "%d rules are too many: use at most %d", len(c.Retention), retentionRulesMax)
	}
	resolutions := c.Resolutions()
	for i := range c.Retention {
		r := &c.Retention[i]
		path := fmt.Sprintf("retention.%d", i)
		if _, err := r.Matchers(); err != nil {
			v.mistake(path+".match", "%v", err)
		}
		if len(r.Keep) == 0 {
			v.mistake(path, "a rule must say how long something is kept: raw, or a resolution of rollups")
		}
		if i < len(c.Retention)-1 && len(r.Match) == 0 {
			v.mistake(path, "it is for every series, so that the rules behind it are for none: give it a match, or make it the last")
		}
		v.checkKeeps(path, r, resolutions)
	}
	if c.RetentionSize < 0 {
		v.mistake("retention_size", "auto is out of bounds: use 0 for any size")
	}
}

func (v *validator) checkKeeps(path string, r *RetentionRule, resolutions []Duration) {
	for _, key := range r.keys() {
		var d Duration
		at, k := path+"."+key, r.Keep[key]
		switch {
		case key != rawKey && (d.Set(key) != nil || !slices.Contains(resolutions, d)):
			v.mistake(at, "%q is not match, raw or one of the resolutions of rollups", key)
		case k != Forever && (k < Keep(day) || k%Keep(day) != 0):
			v.mistake(at, "%v is out of bounds: use whole days, at least 1d, or forever", k)
		}
	}
	keeps := r.Keeps(resolutions)
	if longest := slices.Max(keeps); keeps[0] < rawKeptMin && longest > keeps[0] {
		v.mistake(path+"."+rawKey, "%v is too short where buckets are kept for %v: a day is rolled up when the next one is sealed, so keep raw for 2d at least", keeps[0], longest)
	}
}

// Series says which series the rule is for.
func (r *RetentionRule) Series() string {
	if len(r.Match) == 0 {
		return "every series"
	}
	return strings.Join(r.Match, " or ")
}

// String is the rule on a line.
func (r *RetentionRule) String() string {
	var keeps []string
	for _, key := range r.keys() {
		keeps = append(keeps, key+" "+r.Keep[key].String())
	}
	return r.Series() + ": " + strings.Join(keeps, ", ")
}
