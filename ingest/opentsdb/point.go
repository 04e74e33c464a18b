package opentsdb

import (
	"errors"
	"fmt"

	"varve/arrival"
	"varve/ingest"
	"varve/jsonwalk"
)

// point is a point as JSON has it, in place. Members that are missing are of the kind None; of one that is there twice the last counts, as it does for
// OpenTSDB. Members of other names say nothing.
type point struct{ metric, timestamp, value, tags jsonwalk.Value }

var (
	errNoObject = errors.New("a point is no object")
	errMetric   = errors.New("the metric is no string")
	errTags     = errors.New("the tags are no object")
)

// readPoint reads the object that comes next. Errors are of the class jsonwalk.ErrSyntax.
func readPoint(r *jsonwalk.Reader, p *point) error {
	*p = point{}
	r.Open('{')
	for first := true; ; first = false {
		more, err := r.Next(first, '}')
		if err != nil || !more {
			return err
		}
		key, err := r.Key()
		if err != nil {
			return err
		}
		v, err := r.Value()
		if err != nil {
			return err
		}
		switch {
		case key.Is("metric"):
			p.metric = v
		case key.Is("timestamp"):
			p.timestamp = v
		case key.Is("value"):
			p.value = v
		case key.Is("tags"):
			p.tags = v
		}
	}
}

// judge says at what time a point has which value, or why it is refused. The tags are looked at where their series is named.
func (p *point) judge() (millis int64, bits uint64, reason arrival.Reason, err error) {
	switch {
	case p.metric.Kind == jsonwalk.None, p.metric.Kind == jsonwalk.Null, p.metric.Kind == jsonwalk.String && len(p.metric.Raw) == 0:
		return 0, 0, arrival.ReasonInvalidLabels, errNoMetric
	case p.metric.Kind != jsonwalk.String:
		return 0, 0, arrival.ReasonInvalidLabels, errMetric
	case p.tags.Kind != jsonwalk.None && p.tags.Kind != jsonwalk.Null && p.tags.Kind != jsonwalk.Object:
		return 0, 0, arrival.ReasonInvalidLabels, errTags
	}
	switch p.timestamp.Kind {
	case jsonwalk.Number, jsonwalk.String:
		millis, err = times(written(p.timestamp))
	default:
		err = errTime
	}
	if err != nil {
		return 0, 0, arrival.ReasonInvalidLine, err
	}
	switch p.value.Kind {
	case jsonwalk.Number, jsonwalk.String:
		bits, reason, err = value(written(p.value))
	case jsonwalk.NotFinite:
		reason, err = arrival.ReasonInvalidValue, errNotFinite
	case jsonwalk.None, jsonwalk.Null:
		reason, err = arrival.ReasonInvalidValue, errNoValue
	default:
		reason, err = arrival.ReasonInvalidValue, errNoNumber
	}
	return millis, bits, reason, err
}

// written is how a number or a string is written, without escapes.
func written(v jsonwalk.Value) []byte {
	if v.Escaped {
		return []byte(v.Text())
	}
	return v.Raw
}

// appendIdentity appends the bytes that name the point's series. A string of JSON holds no zero byte, so that no two
// names and tags make the same.
func (p *point) appendIdentity(dst []byte) []byte {
	return append(append(append(dst, p.metric.Raw...), 0), p.tags.Raw...)
}

// appendTags appends the tags. Of one that is there twice the last counts.
func (p *point) appendTags(tags []pair, tagsMax int) ([]pair, error) {
	if p.tags.Kind != jsonwalk.Object {
		return tags, nil
	}
	r := jsonwalk.NewReader(p.tags.Raw, 0)
	r.Open('{')
	for first := true; ; first = false {
		more, err := r.Next(first, '}')
		if err != nil || !more {
			return tags, err
		}
		key, err := r.Key()
		if err != nil {
			return tags, err
		}
		v, err := r.Value()
		if err != nil {
			return tags, err
		}
		t := pair{name: key.Text()}
		switch v.Kind {
		case jsonwalk.String, jsonwalk.Number, jsonwalk.True, jsonwalk.False:
			t.value = v.Text()
		case jsonwalk.Null:
		default:
			return tags, fmt.Errorf("tag %s is no text", quoted(t.name))
		}
		if tags = replaceOrAppend(tags, t); len(tags) > tagsMax {
			return tags, fmt.Errorf("%w: more than %d", errMaxTags, tagsMax)
		}
	}
}

func replaceOrAppend(tags []pair, t pair) []pair {
	for i := range tags {
		if tags[i].name == t.name {
			tags[i].value = t.value
			return tags
		}
	}
	return append(tags, t)
}

// errAgain says that a point which was read before can't be read now.
var errAgain = errors.New("the point is none any more")

// addPoint adds the labels of the point that begins at a byte of the body.
func (o *Options) addPoint(sets *ingest.LabelSets, body []byte, at uint64, tags []pair, tagsMax int) ([]pair, error) {
	r := jsonwalk.NewReader(body, int(at))
	var p point
	if err := readPoint(&r, &p); err != nil {
		return tags, errAgain
	}
	tags, err := p.appendTags(tags[:0], tagsMax)
	if err != nil {
		return tags, err
	}
	return tags, o.addLabels(sets, p.metric.Text(), tags)
}
