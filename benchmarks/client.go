package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"varve/benchmarks/peer"
)

// answerBytesMax bounds what is read of an answer.
const answerBytesMax = 1 << 30

// httpClient asks without compression, which would be measured too.
var httpClient = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2, ReadBufferSize: 256 << 10}}

// ask sends a query to an endpoint below /api/v1 and returns the answer as it
// came, and the time until its last byte.
func ask(ctx context.Context, server *peer.Server, endpoint string, parameters url.Values, limit time.Duration) ([]byte, time.Duration, error) {
	body, _, took, err := askHeader(ctx, server, endpoint, parameters, limit)
	return body, took, err
}

// askHeader is ask, with the header of the answer.
func askHeader(ctx context.Context, server *peer.Server, endpoint string, parameters url.Values, limit time.Duration) ([]byte, http.Header, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if server.Spec.Kind == peer.VictoriaMetrics {
		// It would answer repeated queries from a cache of results.
		parameters.Set("nocache", "1")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.Address+"/api/v1/"+endpoint+"?"+parameters.Encode(), nil)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("query %s: %w", server.Spec.Name, err)
	}
	began := time.Now()
	response, err := httpClient.Do(request)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("query %s: %w", server.Spec.Name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	took := time.Since(began)
	if err != nil {
		return nil, nil, took, fmt.Errorf("query %s: %w", server.Spec.Name, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, took, fmt.Errorf("query %s: status %d: %.300s", server.Spec.Name, response.StatusCode, body)
	}
	return body, response.Header, took, nil
}

// answer is a matrix or vector as the query API gives it, sorted by labels.
type answer struct{ series []answerSeries }

// answerSeries is one series; its samples are times and value strings.
type answerSeries struct {
	name    string
	labels  map[string]string
	samples []answerSample
}

// answerSample is a sample with its value as it was written.
type answerSample struct {
	millis int64
	value  string
}

// UnmarshalJSON reads [seconds, "value"].
func (s *answerSample) UnmarshalJSON(text []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(string(pair[0]), 64)
	if err != nil {
		return err
	}
	s.millis = int64(seconds*1000 + 0.5)
	return json.Unmarshal(pair[1], &s.value)
}

// parseAnswer reads an answer and sorts its series.
func parseAnswer(body []byte) (answer, error) {
	var message struct {
		Status string `json:"status"`
		Data   struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Values []answerSample    `json:"values"`
				Value  *answerSample     `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return answer{}, fmt.Errorf("parse answer: %w", err)
	}
	if message.Status != "success" {
		return answer{}, fmt.Errorf("parse answer: status %q", message.Status)
	}
	var a answer
	for _, r := range message.Data.Result {
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		a.series = append(a.series, answerSeries{name: labelText(r.Metric), labels: r.Metric, samples: r.Values})
	}
	slices.SortFunc(a.series, func(x, y answerSeries) int { return strings.Compare(x.name, y.name) })
	return a, nil
}

// labelText writes labels in one order.
func labelText(labels map[string]string) string {
	var parts []string
	for name, value := range labels {
		parts = append(parts, name+"="+strconv.Quote(value))
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

// points counts the samples of an answer.
func (a answer) points() int64 {
	n := int64(0)
	for _, s := range a.series {
		n += int64(len(s.samples))
	}
	return n
}

// sum adds up the values of an answer.
func (a answer) sum() float64 {
	total := 0.0
	for _, s := range a.series {
		for _, sample := range s.samples {
			v, _ := strconv.ParseFloat(sample.value, 64)
			total += v
		}
	}
	return total
}
