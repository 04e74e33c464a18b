// Package export reads back all samples of a target from a server and compares them
// with what was sent, bit for bit.
//
// Samples asks in the way that shows most of what a server keeps: by remote read with
// streamed chunks from Varve and Prometheus, whose chunks hold the bits of every
// value; by /api/v1/export from VictoriaMetrics, whose lines print the shortest
// decimal that gives the same float64 again. That format writes null for a NaN, which is
// taken for a stale marker, the only NaN that VictoriaMetrics tells apart; or, in the form that
// Debian has, NaN for some.
//
// Compare does this for each target of a fleet and counts samples by what became of
// them. It holds one target's bookkeeping at a time, a bit a sample.
//
// The functions hold no state and may be called from several goroutines.
package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/benchmarks/peer"
)

// Range is a target and a time range, both ends included, in Unix milliseconds.
type Range struct {
	Instance             string
	MinMillis, MaxMillis int64
}

// Visit gets one stored sample. The samples of a series come in any order.
type Visit func(l labels.Labels, millis int64, v float64)

const (
	// frameBytesMax bounds a frame of a streamed answer, as upstream's own client does.
	frameBytesMax = 50_000_000
	// lineBytesMax bounds a line of an export: a series of some million samples.
	lineBytesMax = 256 << 20
)

// Samples calls back with all samples of a target within a range. The client must
// have no timeout below that of the whole answer.
func Samples(ctx context.Context, client *http.Client, server *peer.Server, r Range, visit Visit) error {
	read := readChunks
	if server.Spec.Kind == peer.VictoriaMetrics {
		read = readLines
	}
	if err := read(ctx, client, server.Address, r, visit); err != nil {
		return fmt.Errorf("export %s from %s: %w", r.Instance, server.Spec.Name, err)
	}
	return nil
}

// send asks and gives the body of the answer, which the caller closes.
func send(client *http.Client, request *http.Request) (io.ReadCloser, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, 300))
		return nil, errors.Join(fmt.Errorf("status %d: %s", response.StatusCode, text), err, response.Body.Close())
	}
	return response.Body, nil
}

// readChunks asks by remote read.
func readChunks(ctx context.Context, client *http.Client, address string, r Range, visit Visit) error {
	body, err := proto.Marshal(&prompb.ReadRequest{
		Queries: []*prompb.Query{{
			StartTimestampMs: r.MinMillis, EndTimestampMs: r.MaxMillis,
			Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "instance", Value: r.Instance}},
		}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/api/v1/read", bytes.NewReader(s2.EncodeSnappy(nil, body)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	answer, err := send(client, request)
	if err != nil {
		return err
	}
	defer answer.Close()
	return visitChunks(answer, r, visit)
}

// visitChunks reads a streamed answer.
func visitChunks(answer io.Reader, r Range, visit Visit) error {
	frames := remote.NewChunkedReader(answer, frameBytesMax, nil)
	builder := labels.NewScratchBuilder(0)
	var samples chunkenc.Iterator
	for {
		var frame prompb.ChunkedReadResponse
		if err := frames.NextProto(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, series := range frame.ChunkedSeries {
			l := series.ToLabels(&builder, nil)
			for _, c := range series.Chunks {
				// Numbers of encodings are the same in both.
				chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
				if err != nil {
					return err
				}
				samples = chunk.Iterator(samples)
				for kind := samples.Next(); kind != chunkenc.ValNone; kind = samples.Next() {
					if kind != chunkenc.ValFloat {
						return fmt.Errorf("%s: a sample that is no float", l)
					}
					// Chunks may reach beyond what was asked for.
					if millis, v := samples.At(); millis >= r.MinMillis && millis <= r.MaxMillis {
						visit(l, millis, v)
					}
				}
				if err := samples.Err(); err != nil {
					return err
				}
			}
		}
	}
}

// readLines asks by VictoriaMetrics' export.
func readLines(ctx context.Context, client *http.Client, address string, r Range, visit Visit) error {
	parameters := url.Values{
		"match[]": {"{instance=" + strconv.Quote(r.Instance) + "}"}, "reduce_mem_usage": {"1"},
		"start": {strconv.FormatInt(r.MinMillis/1000, 10)}, "end": {strconv.FormatInt(r.MaxMillis/1000+1, 10)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/export?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := send(client, request)
	if err != nil {
		return err
	}
	defer answer.Close()
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		if err := visitLine(lines.Bytes(), r, visit); err != nil {
			return err
		}
	}
	return lines.Err()
}

// visitLine reads a line: some samples of one series.
func visitLine(line []byte, r Range, visit Visit) error {
	var block struct {
		Metric     map[string]string `json:"metric"`
		Timestamps []int64           `json:"timestamps"`
	}
	rest, list, err := cutValues(line)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(rest, &block); err != nil {
		return fmt.Errorf("parse line: %w", err)
	}
	l := labels.FromMap(block.Metric)
	values := strings.Split(list, ",")
	if len(block.Timestamps) == 0 {
		values = nil
	}
	if len(values) != len(block.Timestamps) {
		return fmt.Errorf("%s: %d values for %d times", l, len(values), len(block.Timestamps))
	}
	for i, text := range values {
		v, err := parseValue(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		if millis := block.Timestamps[i]; millis >= r.MinMillis && millis <= r.MaxMillis {
			visit(l, millis, v)
		}
	}
	return nil
}

// cutValues takes the list of values out of a line, which is JSON but for them: some
// releases write NaN as it is. A quote in a label is escaped, so no label holds the name of the list.
func cutValues(line []byte) (rest []byte, list string, err error) {
	const name = `"values":[`
	first := bytes.Index(line, []byte(name))
	if first < 0 {
		return nil, "", errors.New("parse line: no values")
	}
	begin := first + len(name)
	length := bytes.IndexByte(line[begin:], ']')
	if length < 0 {
		return nil, "", errors.New("parse line: values without an end")
	}
	list = string(line[begin : begin+length])
	return append(append([]byte(nil), line[:begin]...), line[begin+length:]...), list, nil
}

// parseValue reads a value as an export writes it.
func parseValue(text string) (float64, error) {
	if text == "null" {
		return math.Float64frombits(value.StaleNaN), nil
	}
	// Infinities are written as strings, which JSON has no numbers for.
	return strconv.ParseFloat(strings.Trim(text, `"`), 64)
}
