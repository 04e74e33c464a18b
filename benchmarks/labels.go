package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"varve/benchmarks/result"
)

// labelPaths are the requests that Grafana's editors and variables make, with the
// selector of those that have one.
var labelPaths = []struct{ path, match string }{
	{"labels", ""},
	{"label/__name__/values", ""},
	{"label/instance/values", `go_goroutines{job="node"}`},
	{"label/mode/values", `node_cpu_seconds_total`},
	{"series", `node_cpu_seconds_total`},
	{"series", `{job="prometheus",__name__=~".+_bucket"}`},
}

// askLabels asks all servers for labels and series over the whole span: first after
// a restart with cold files, then as often as there are passes.
func (r *fleetRun) askLabels(ctx context.Context, start, end int64) error {
	for i := range r.specs {
		for _, request := range labelPaths {
			path := request.path
			if request.match != "" {
				path += "?match[]=" + request.match
			}
			r.entries[i].Fleet.Labels = append(r.entries[i].Fleet.Labels, result.LabelPoint{Path: path})
		}
	}
	// No panels: only the restart and the dropping of cached files.
	if err := r.coldPass(ctx, &board{verb: "fleet"}, r.servers, false); err != nil {
		return err
	}
	for pass := range 1 + r.settings.passes {
		for k := range labelPaths {
			answers := make([][]string, len(r.servers))
			for i := range r.servers {
				answers[i] = r.askLabel(ctx, i, k, pass == 0, start, end)
			}
			for i := range r.servers {
				point := &r.entries[i].Fleet.Labels[k]
				point.Count = len(answers[i])
				point.Identical = point.Error == "" && slices.Equal(answers[i], answers[r.reference()])
			}
		}
	}
	for k := range labelPaths {
		for i, spec := range r.specs {
			p := r.entries[i].Fleet.Labels[k]
			r.say("labels %-50s %-16s %6d entries, first %s ms, warm %s ms, identical %t %s", p.Path, spec.Name+":", p.Count, milliseconds(p.ColdSeconds),
				milliseconds(p.WarmSeconds), p.Identical, p.Error)
		}
	}
	return ctx.Err()
}

// askLabel asks one server one request and notes its time.
func (r *fleetRun) askLabel(ctx context.Context, i, k int, cold bool, start, end int64) []string {
	point := &r.entries[i].Fleet.Labels[k]
	parameters := url.Values{"start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(end, 10)}}
	if labelPaths[k].match != "" {
		parameters.Set("match[]", labelPaths[k].match)
	}
	body, took, err := ask(ctx, r.servers[i], labelPaths[k].path, parameters, queryLimit)
	if err != nil {
		point.Error = err.Error()
		return nil
	}
	entries, err := parseEntries(body)
	if err != nil {
		point.Error = err.Error()
		return nil
	}
	if cold {
		point.ColdSeconds = append(point.ColdSeconds, took.Seconds())
	} else {
		point.WarmSeconds = append(point.WarmSeconds, took.Seconds())
	}
	return entries
}

// parseEntries reads a list of strings or of label sets, and sorts it.
func parseEntries(body []byte) ([]string, error) {
	var message struct {
		Status string            `json:"status"`
		Data   []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, fmt.Errorf("parse labels: %w", err)
	}
	if message.Status != "success" {
		return nil, fmt.Errorf("parse labels: status %q", message.Status)
	}
	var entries []string
	for _, raw := range message.Data {
		var text string
		var set map[string]string
		if err := json.Unmarshal(raw, &text); err != nil {
			if err := json.Unmarshal(raw, &set); err != nil {
				return nil, fmt.Errorf("parse labels: %w", err)
			}
			text = labelText(set)
		}
		entries = append(entries, text)
	}
	slices.Sort(entries)
	return entries, nil
}
