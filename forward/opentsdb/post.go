package opentsdb

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"varve/forward"
	"varve/forward/payload"
)

// post sends a batch over HTTP. Points that the answer names are refused beside forward.Refused, so that the core sends the rest again,
// to be sure that the answer named all: a point written twice is one point.
func (s *Sender) post(ctx context.Context, e *encoder, b *forward.Batch) (forward.Outcome, error) {
	p := payload.Get()
	defer p.Put()
	if p.Data = e.json(p.Data, b, &s.opts); len(p.Data) == 0 {
		return e.out, nil
	}
	r, err := p.Post(ctx, s.url, s.opts.Gzip)
	if err != nil {
		return forward.Outcome{}, fmt.Errorf("output %s: %w", s.opts.Name, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "varve")
	a, err := forward.Do(s.client, r)
	if err != nil {
		return forward.Outcome{}, err
	}
	var found []pointError
	if a.Status/100 == 2 || a.Status == http.StatusBadRequest {
		found = pointErrors(a.Body)
	}
	if len(found) == 0 {
		if err := s.judge(a, len(e.refs)); err != nil {
			return forward.Outcome{}, err
		}
		return e.out, nil
	}
	for _, f := range found {
		if passing(f.Error) {
			return forward.Outcome{}, &forward.Retry{Err: fmt.Errorf("the target could not store a point: %s", f.Error)}
		}
	}
	e.out.Refusals = e.trace(found, b, &s.opts)
	return e.out, &forward.Refused{Err: fmt.Errorf("the target refused %d points, one because of: %s", len(found), found[0].Error)}
}

// judge says what an answer without points means.
func (s *Sender) judge(a *forward.Answer, points int) error {
	if strings.Contains(a.Body, "Chunked request not supported") {
		err := forward.TooLarge("OpenTSDB reads no long requests; set tsd.http.request.enable_chunked there")
		if points == 1 {
			return &forward.Blocked{Err: err}
		}
		return err
	}
	return a.Err(time.Now())
}

// passing says whether the fault of a point is the store's and not the point's, so that it may be taken later.
func passing(reason string) bool {
	return slices.ContainsFunc([]string{"Storage exception", "HBase error", "throttle", "timed out", "timeout", "Timeout"}, func(s string) bool {
		return strings.Contains(reason, s)
	})
}

// pointError is what the answer says of a point.
type pointError struct {
	Datapoint struct {
		Metric    string            `json:"metric"`
		Timestamp json.Number       `json:"timestamp"`
		Tags      map[string]string `json:"tags"`
	} `json:"datapoint"`
	Error string `json:"error"`
}

// pointErrors reads the list of errors in an answer with details, as far as it goes, since the answer may have been cut:
//
//	{"errors":[{"datapoint":{"metric":"m","timestamp":1,"value":"v","tags":{}},"error":"why"}],"failed":1,"success":9}
func pointErrors(body string) []pointError {
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	if !opens(d, '{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil
		}
		if key == "errors" {
			break
		}
		var skipped json.RawMessage
		if d.Decode(&skipped) != nil {
			return nil
		}
	}
	if !opens(d, '[') {
		return nil
	}
	var found []pointError
	for d.More() {
		var e pointError
		if d.Decode(&e) != nil {
			break
		}
		found = append(found, e)
	}
	return found
}

func opens(d *json.Decoder, with json.Delim) bool {
	token, err := d.Token()
	return err == nil && token == with
}

// trace finds the samples of the points that were just sent and that the answer names. It returns none unless each error names at least one.
func (e *encoder) trace(found []pointError, b *forward.Batch, o *Options) []forward.Refusal {
	sent := make(map[string][]ref, len(e.refs))
	for _, at := range e.refs {
		s := &b.Series[at.series]
		t, _ := o.time(s.Floats[at.float].TimeMillis)
		key := string(strconv.AppendInt(slices.Clone(s.Form.(*form).head), t, 10))
		sent[key] = append(sent[key], at)
	}
	var refusals []forward.Refusal
	for _, f := range found {
		// Where several samples are one point to the target, and that is refused for each, the first error has them all.
		refs, known := sent[f.key()]
		if !known {
			return nil
		}
		sent[f.key()] = nil
		for _, at := range refs {
			refusals = append(refusals, at.refusal(cmp.Or(f.Error, "refused without a reason")))
		}
	}
	return refusals
}

// key is the point as it was sent, up to and with its time.
func (f *pointError) key() string {
	tags := make([]tag, 0, len(f.Datapoint.Tags))
	for name, value := range f.Datapoint.Tags {
		tags = append(tags, tag{name, value})
	}
	slices.SortFunc(tags, byName)
	return string(jsonHead(f.Datapoint.Metric, tags)) + f.Datapoint.Timestamp.String()
}
