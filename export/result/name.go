package result

import (
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Name writes a label set as PromQL has it: up{instance="a", job="b"}, and {} for none. What can't be printed is written
// as in a string of Go, so a name is one line.
func Name(ls labels.Labels) string {
	var b strings.Builder
	metric := ls.Get(model.MetricNameLabel)
	plain := model.LegacyValidation.IsValidMetricName(metric)
	if plain {
		b.WriteString(metric)
	}
	n := 0
	item := func(parts ...string) {
		if n == 0 {
			b.WriteByte('{')
		} else {
			b.WriteString(", ")
		}
		n++
		for _, p := range parts {
			b.WriteString(p)
		}
	}
	if metric != "" && !plain {
		item(strconv.Quote(metric))
	}
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		name := l.Name
		if !model.LegacyValidation.IsValidLabelName(name) {
			name = strconv.Quote(name)
		}
		item(name, "=", strconv.Quote(l.Value))
	})
	switch {
	case n > 0:
		b.WriteByte('}')
	case !plain:
		return "{}"
	}
	return b.String()
}

// Line returns a text as one line: stretches of white space and of what can't be printed become a blank, bytes that are no
// UTF-8 the replacement character.
func Line(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return !strconv.IsPrint(r) // of white space only the ASCII space can be
	}), " ")
}

// Titles are what the legend of a figure calls series, of the queries that they are of. A name that is the same for two queries, or
// that says nothing, has the query with it, or gives way to it.
func Titles(queries []string, of []int, sets []labels.Labels) []string {
	names := make([]string, len(sets))
	count := map[string]int{}
	for i, ls := range sets {
		names[i] = Name(ls)
		count[names[i]]++
	}
	for i := range names {
		query := Line(queries[of[i]])
		switch {
		case names[i] == "{}":
			names[i] = query
		case count[names[i]] > 1:
			names[i] = query + " " + names[i]
		}
	}
	return names
}
