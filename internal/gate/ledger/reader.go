package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/internal/gate/server"
)

// readTimeout bounds one answer of a server under test. A server that has
// nothing else to do answers far earlier.
const readTimeout = 3 * time.Minute

// answerFrameBytesMax bounds a frame of a streamed remote read answer. Senders
// keep to one megabyte, more or less.
const answerFrameBytesMax = 16 << 20

// Reader reads what a server stores, through its HTTP interface.
type Reader struct {
	base   string
	client *http.Client
}

// NewReader returns a reader of the server at the base URL, without a slash at
// its end.
func NewReader(base string) *Reader {
	return &Reader{base: base, client: &http.Client{Timeout: readTimeout, Transport: &http.Transport{}}}
}

// Close lets go of idle connections.
func (r *Reader) Close() { r.client.CloseIdleConnections() }

// found is a sample that a server returned.
type found struct {
	labels labels.Labels
	millis int64
	mark   mark
}

// samples gives everything in the time range that the writer of the workload
// named gate stored, series by series, with the error that ended it. Streamed
// chooses the answer with chunks rather than the one with samples.
func (r *Reader) samples(ctx context.Context, gate string, id WriterID, mint, maxt int64, streamed bool) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		set, err := r.remoteRead(ctx, gate, id, mint, maxt, streamed)
		if err != nil {
			yield(found{}, err)
			return
		}
		var it chunkenc.Iterator
		for set.Next() {
			series := set.At()
			lset := series.Labels()
			it = series.Iterator(it)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				f := found{labels: lset, millis: it.AtT()}
				switch kind {
				case chunkenc.ValFloat:
					_, v := it.At()
					f.mark = mark{bits: math.Float64bits(v)}
				case chunkenc.ValHistogram:
					_, h := it.AtHistogram(nil)
					f.mark = mark{bits: Histogram{Int: h}.Digest(), histogram: true}
				case chunkenc.ValFloatHistogram:
					_, h := it.AtFloatHistogram(nil)
					f.mark = mark{bits: Histogram{Float: h}.Digest(), histogram: true}
				}
				if !yield(f, nil) {
					return
				}
			}
			if err := it.Err(); err != nil {
				yield(found{}, fmt.Errorf("read %s: %w", lset, err))
				return
			}
		}
		if err := set.Err(); err != nil {
			yield(found{}, fmt.Errorf("remote read of writer %s: %w", id, err))
		}
	}
}

func (r *Reader) remoteRead(ctx context.Context, gate string, id WriterID, mint, maxt int64, streamed bool) (storage.SeriesSet, error) {
	address, err := url.Parse(r.base + "/api/v1/read")
	if err != nil {
		return nil, fmt.Errorf("remote read: %w", err)
	}
	kind := prompb.ReadRequest_SAMPLES
	if streamed {
		kind = prompb.ReadRequest_STREAMED_XOR_CHUNKS
	}
	client, err := remote.NewReadClient("gate", &remote.ClientConfig{
		URL:                   &commonconfig.URL{URL: address},
		Timeout:               commonmodel.Duration(readTimeout),
		ChunkedReadLimit:      answerFrameBytesMax,
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
	})
	if err != nil {
		return nil, fmt.Errorf("remote read: %w", err)
	}
	query, err := remote.ToQuery(mint, maxt, []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, LabelGate, gate),
		labels.MustNewMatcher(labels.MatchEqual, LabelWriter, string(id)),
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("remote read: %w", err)
	}
	set, err := client.Read(ctx, query, true)
	if err != nil {
		return nil, fmt.Errorf("remote read of writer %s: %w", id, err)
	}
	return set, nil
}

// api fetches a path of the query API and decodes the data of the answer.
func (r *Reader) api(ctx context.Context, path string, parameters url.Values, data any) error {
	status, body, err := server.Get(ctx, r.base+path+"?"+parameters.Encode())
	if err != nil {
		return err
	}
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s answered %d: %w", path, status, errors.Join(err, errors.New(string(body[:min(len(body), 200)]))))
	}
	if answer.Status != "success" {
		return &apiError{path: path, status: status, text: answer.Error}
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	return nil
}

// apiError is an answer of the query API that is an error.
type apiError struct {
	path   string
	status int
	text   string
}

// Error implements error.
func (e *apiError) Error() string { return fmt.Sprintf("%s answered %d: %s", e.path, e.status, e.text) }

// timeRange are the parameters of a time range.
func timeRange(mint, maxt int64) url.Values {
	return url.Values{"start": {seconds(mint)}, "end": {seconds(maxt)}}
}

func seconds(millis int64) string { return strconv.FormatFloat(float64(millis)/1000, 'f', 3, 64) }

// selector selects what a writer stored.
func selector(gate string, id WriterID) string {
	return fmt.Sprintf("{%s=%q,%s=%q}", LabelGate, gate, LabelWriter, string(id))
}

// series lists the label sets of a writer through /api/v1/series.
func (r *Reader) series(ctx context.Context, gate string, id WriterID, mint, maxt int64) ([]labels.Labels, error) {
	parameters := timeRange(mint, maxt)
	parameters.Set("match[]", selector(gate, id))
	var out []labels.Labels
	err := r.api(ctx, "/api/v1/series", parameters, &out)
	return out, err
}

// labelValues lists the values of a label of a writer's series.
func (r *Reader) labelValues(ctx context.Context, label, gate string, id WriterID, mint, maxt int64) ([]string, error) {
	parameters := timeRange(mint, maxt)
	parameters.Set("match[]", selector(gate, id))
	var out []string
	err := r.api(ctx, "/api/v1/label/"+label+"/values", parameters, &out)
	return out, err
}

// exemplars lists the exemplars of a writer's series.
func (r *Reader) exemplars(ctx context.Context, gate string, id WriterID, mint, maxt int64) (map[string][]exemplarKey, error) {
	parameters := timeRange(mint, maxt)
	parameters.Set("query", selector(gate, id))
	var answer []struct {
		SeriesLabels labels.Labels `json:"seriesLabels"`
		Exemplars    []struct {
			Labels    labels.Labels `json:"labels"`
			Value     string        `json:"value"`
			Timestamp float64       `json:"timestamp"`
		} `json:"exemplars"`
	}
	if err := r.api(ctx, "/api/v1/query_exemplars", parameters, &answer); err != nil {
		return nil, err
	}
	out := map[string][]exemplarKey{}
	for _, s := range answer {
		key := string(s.SeriesLabels.Bytes(nil))
		for _, e := range s.Exemplars {
			v, err := strconv.ParseFloat(e.Value, 64)
			if err != nil {
				return nil, fmt.Errorf("value of an exemplar: %w", err)
			}
			out[key] = append(out[key], exemplarKey{
				labels: e.Labels.String(), millis: int64(math.Round(e.Timestamp * 1000)), value: v,
			})
		}
	}
	return out, nil
}

// metadata lists what the server knows of metric families.
func (r *Reader) metadata(ctx context.Context) (map[string][]familyEntry, error) {
	out := map[string][]familyEntry{}
	err := r.api(ctx, "/api/v1/metadata", url.Values{}, &out)
	return out, err
}

// familyEntry is an entry of the metadata API.
type familyEntry struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// count is the answer of an instant query for one number, 0 when it is empty.
func (r *Reader) count(ctx context.Context, query string, atMillis int64) (float64, error) {
	var answer struct {
		Result []struct {
			Value []any `json:"value"`
		} `json:"result"`
	}
	err := r.api(ctx, "/api/v1/query", url.Values{"query": {query}, "time": {seconds(atMillis)}}, &answer)
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", query, err)
	}
	if len(answer.Result) == 0 {
		return 0, nil
	}
	text, ok := answer.Result[0].Value[1].(string)
	if !ok {
		return 0, fmt.Errorf("query %s: the value is no string: %v", query, answer.Result[0].Value)
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", query, err)
	}
	return v, nil
}
