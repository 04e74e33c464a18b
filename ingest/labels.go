package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// ErrInvalidLabels is the class of every label set that a sender got wrong.
var ErrInvalidLabels = errors.New("invalid labels")

// LabelSets builds label sets in the form that the archive stores: sorted by
// name, each name once, no empty value, valid UTF-8, within the limits. Add the
// pairs of one set in any order, then take it with Series or Exemplar; both
// empty the builder. It keeps its memory from one set to the next and is not safe
// for use by several goroutines.
type LabelSets struct {
	limits  Limits
	builder labels.ScratchBuilder
	pairs   []labels.Label
	named   int
}

// NewLabelSets returns an empty builder. Limits must have their defaults filled in.
func NewLabelSets(limits Limits) *LabelSets {
	return &LabelSets{limits: limits, builder: labels.NewScratchBuilder(16)}
}

// Add adds a pair. The strings may alias a buffer that stays unchanged until the
// set is taken. Pairs beyond the limit are counted and not kept.
func (s *LabelSets) Add(name, value string) {
	s.named++
	if s.named <= s.limits.LabelsMax {
		s.pairs = append(s.pairs, labels.Label{Name: name, Value: value})
	}
}

// Clear drops the pairs that were added.
func (s *LabelSets) Clear() {
	clear(s.pairs)
	s.pairs, s.named = s.pairs[:0], 0
}

// Series returns the labels of a series, in memory of their own. The error wraps
// ErrInvalidLabels and quotes what a sender wrote in printable characters.
func (s *LabelSets) Series() (labels.Labels, error) {
	defer s.Clear()
	if err := s.arrange(); err != nil {
		return labels.EmptyLabels(), err
	}
	metric := ""
	for _, p := range s.pairs {
		if p.Name == model.MetricNameLabel {
			metric = p.Value
		}
	}
	if metric == "" {
		return labels.EmptyLabels(), fmt.Errorf("%w: no metric name in %s", ErrInvalidLabels, describe(s.pairs))
	}
	return s.take(), nil
}

// Exemplar returns the labels of an exemplar, which may be none, in memory of
// their own. Errors are those of Series.
func (s *LabelSets) Exemplar() (labels.Labels, error) {
	defer s.Clear()
	if err := s.arrange(); err != nil {
		return labels.EmptyLabels(), err
	}
	chars := 0
	for _, p := range s.pairs {
		chars += utf8.RuneCountInString(p.Name) + utf8.RuneCountInString(p.Value)
	}
	if chars > s.limits.ExemplarCharsMax {
		return labels.EmptyLabels(), fmt.Errorf("%w: %d characters in the labels of an exemplar, at most %d", ErrInvalidLabels, chars, s.limits.ExemplarCharsMax)
	}
	return s.take(), nil
}

// arrange sorts the pairs and checks them.
func (s *LabelSets) arrange() error {
	if s.named > s.limits.LabelsMax {
		return fmt.Errorf("%w: %d labels, at most %d", ErrInvalidLabels, s.named, s.limits.LabelsMax)
	}
	byName := func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(s.pairs, byName) {
		slices.SortStableFunc(s.pairs, byName)
	}
	for i, p := range s.pairs {
		switch {
		case p.Name == "":
			return fmt.Errorf("%w: a label without a name in %s", ErrInvalidLabels, describe(s.pairs))
		case i > 0 && s.pairs[i-1].Name == p.Name:
			return fmt.Errorf("%w: label %s is given twice in %s", ErrInvalidLabels, quoted(p.Name), describe(s.pairs))
		case len(p.Name) > s.limits.NameBytesMax:
			return fmt.Errorf("%w: the name of label %s has %d bytes, at most %d", ErrInvalidLabels, quoted(p.Name), len(p.Name), s.limits.NameBytesMax)
		case len(p.Value) > s.limits.ValueBytesMax:
			return fmt.Errorf("%w: the value of label %s has %d bytes, at most %d", ErrInvalidLabels, quoted(p.Name), len(p.Value), s.limits.ValueBytesMax)
		case !model.UTF8Validation.IsValidLabelName(p.Name):
			return fmt.Errorf("%w: label name %s is not UTF-8", ErrInvalidLabels, quoted(p.Name))
		case !utf8.ValidString(p.Value):
			return fmt.Errorf("%w: value %s of label %s is not UTF-8", ErrInvalidLabels, quoted(p.Value), quoted(p.Name))
		}
	}
	return nil
}

// take copies the arranged pairs out, without the empty values.
func (s *LabelSets) take() labels.Labels {
	s.builder.Reset()
	for _, p := range s.pairs {
		if p.Value != "" {
			s.builder.Add(p.Name, p.Value)
		}
	}
	return s.builder.Labels()
}

// describedPairs is how many labels an error names: enough to find the sender.
const describedPairs = 4

func describe(pairs []labels.Label) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range pairs {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == describedPairs {
			b.WriteString("...")
			break
		}
		b.WriteString(quoted(p.Name))
		b.WriteByte('=')
		b.WriteString(quoted(p.Value))
	}
	b.WriteByte('}')
	return b.String()
}

// quotedBytes keeps one hostile string from filling the text of an error.
const quotedBytes = 48

func quoted(s string) string {
	if len(s) > quotedBytes {
		return strconv.QuoteToASCII(s[:quotedBytes]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
