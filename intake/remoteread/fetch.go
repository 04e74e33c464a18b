package remoteread

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"varve/intake"
)

// Limits of answers. One over a limit is asked for again in a narrower window.
const (
	frameBytesMax      = 64 << 20
	compressedBytesMax = 64 << 20
	decodedBytesMax    = 256 << 20
)

// answer is what a server said, other than samples.
type answer struct {
	status int
	after  time.Duration
	text   string
}

func (a *answer) Error() string { return a.text }

// errTooMuch is an answer that is over our limits.
var errTooMuch = errors.New("the answer is too large")

// errContent is an answer that no other try makes better.
var errContent = errors.New("the server's answer is malformed")

// classify says of an error whether it may pass, whether less at a time may help, and when the server wants to be asked again.
func classify(err error) (passes, tooMuch bool, after time.Duration) {
	var a *answer
	switch {
	case errors.Is(err, errTooMuch):
		return false, true, 0
	case errors.Is(err, errContent), errors.Is(err, intake.ErrBadChunk), errors.Is(err, errSpool), errors.Is(err, errLocal):
		return false, false, 0
	case !errors.As(err, &a):
		return true, false, 0 // the network
	}
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		return false, false, 0
	case http.StatusTooManyRequests:
		return true, false, a.after
	}
	// Prometheus says 400 when its limit of samples is reached, others 413, 422 or 500.
	return a.status >= http.StatusInternalServerError, a.status < http.StatusInternalServerError && a.status >= http.StatusBadRequest || limitInText(a.text), a.after
}

// errLocal is what goes wrong on this side.
var errLocal = errors.New("on this side")

func limitInText(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "limit") || strings.Contains(text, "too many") || strings.Contains(text, "exceed")
}

// httpFetcher asks a live server.
type httpFetcher struct {
	client   *http.Client
	url      *url.URL
	stalled  time.Duration
	accepted []prompb.ReadRequest_ResponseType
}

func newHTTPFetcher(o *Options) (*httpFetcher, error) {
	client, err := config_util.NewClientFromConfig(o.HTTP, "varve import")
	if err != nil {
		return nil, err
	}
	// A POST that is redirected becomes a GET.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f := &httpFetcher{client: client, url: o.URL, stalled: o.Stalled, accepted: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES}}
	if !o.SamplesOnly {
		f.accepted = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	}
	return f, nil
}

func (f *httpFetcher) close() { f.client.CloseIdleConnections() }

func (f *httpFetcher) fetch(ctx context.Context, from, to int64, selector []*labels.Matcher, emit func(labels.Labels, []intake.Chunk) error) error {
	query, err := remote.ToQuery(from, to, selector, &storage.SelectHints{Start: from, End: to})
	if err != nil {
		return errors.Join(errLocal, err)
	}
	body, err := proto.Marshal(&prompb.ReadRequest{Queries: []*prompb.Query{query}, AcceptedResponseTypes: f.accepted})
	if err != nil {
		return errors.Join(errLocal, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(f.stalled, func() { cancel(fmt.Errorf("the server sent nothing for %s", f.stalled)) })
	defer watch.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url.String(), bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		return errors.Join(errLocal, err)
	}
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("Accept-Encoding", "snappy")
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	a, err := f.client.Do(r)
	if err != nil {
		return cause(ctx, err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return refusal(a)
	}
	moving := &watched{from: a.Body, watch: watch, limit: f.stalled}
	switch kind := a.Header.Get("Content-Type"); {
	case strings.HasPrefix(kind, "application/x-streamed-protobuf"):
		err = readChunks(moving, emit)
	case strings.HasPrefix(kind, "application/x-protobuf"):
		err = readSamples(moving, emit)
	default:
		err = fmt.Errorf("%w: content type %q; does the URL end in the path of remote read, such as /api/v1/read?", errContent, kind)
	}
	return cause(ctx, err)
}

// watched puts a time limit off with each read.
type watched struct {
	from  io.Reader
	watch *time.Timer
	limit time.Duration
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	w.watch.Reset(w.limit)
	return n, err
}

// cause prefers why a context ended to what that led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); err != nil && c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w: %w", c, err)
	}
	return err
}

func refusal(a *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(a.Body, 4<<10))
	seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	said := strings.TrimSpace(string(text[:min(len(text), 300)]))
	return errors.Join(&answer{
		status: a.StatusCode, after: time.Duration(max(0, min(seconds, 600))) * time.Second,
		text: fmt.Sprintf("the server answered %s: %s", a.Status, said),
	}, err)
}

// readChunks reads an answer of streamed chunks.
func readChunks(from io.Reader, emit func(labels.Labels, []intake.Chunk) error) error {
	stream := remote.NewChunkedReader(from, frameBytesMax, nil)
	var check intake.ChunkCheck
	var builder labels.ScratchBuilder
	var some []intake.Chunk
	for {
		b, err := stream.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the answer: %w", err)
		}
		var frame prompb.ChunkedReadResponse
		if err := proto.Unmarshal(b, &frame); err != nil {
			return fmt.Errorf("%w: %w", errContent, err)
		}
		for _, s := range frame.ChunkedSeries {
			ls, err := labelsOf(s.Labels, &builder)
			if err != nil {
				return err
			}
			some = some[:0]
			for i := range s.Chunks {
				c := &s.Chunks[i]
				if c.Type < 0 || c.Type > math.MaxUint8 {
					return fmt.Errorf("%w: series %s: a chunk of encoding %d", errContent, ls, c.Type)
				}
				// The times that the server gives may be those of the range that it keeps the chunk for.
				chunk, err := check.Chunk(chunkenc.Encoding(c.Type), c.Data, math.MinInt64, math.MaxInt64)
				if err != nil {
					return fmt.Errorf("%w: series %s: %w", errContent, ls, err)
				}
				some = append(some, chunk)
			}
			if err := emit(ls, some); err != nil {
				return errors.Join(errLocal, err)
			}
		}
	}
}

func labelsOf(from []prompb.Label, builder *labels.ScratchBuilder) (labels.Labels, error) {
	builder.Reset()
	for _, l := range from {
		if l.Value != "" {
			builder.Add(l.Name, l.Value)
		}
	}
	builder.Sort()
	ls := builder.Labels()
	if name, twice := ls.HasDuplicateLabelNames(); twice {
		return ls, fmt.Errorf("%w: series %s has label %s twice", errContent, ls, name)
	}
	return ls, nil
}

// readSamples reads an answer of samples and encodes them.
func readSamples(from io.Reader, emit func(labels.Labels, []intake.Chunk) error) error {
	compressed, err := io.ReadAll(io.LimitReader(from, compressedBytesMax+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	size, err := snappy.DecodedLen(compressed)
	if err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	if len(compressed) > compressedBytesMax || size > decodedBytesMax {
		return errTooMuch
	}
	b, err := snappy.Decode(nil, compressed)
	if err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	var response prompb.ReadResponse
	if err := proto.Unmarshal(b, &response); err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	var builder labels.ScratchBuilder
	for _, result := range response.Results {
		for _, s := range result.Timeseries {
			ls, err := labelsOf(s.Labels, &builder)
			if err != nil {
				return err
			}
			some, err := encode(s)
			if err != nil {
				return fmt.Errorf("%w: series %s: %w", errContent, ls, err)
			}
			if err := emit(ls, some); err != nil {
				return errors.Join(errLocal, err)
			}
		}
	}
	return nil
}

// encode makes chunks of the samples of a series.
func encode(s *prompb.TimeSeries) (_ []intake.Chunk, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its histograms contradict themselves: %v", r)
		}
	}()
	s.Samples = ascending(s.Samples, func(x *prompb.Sample) int64 { return x.Timestamp })
	s.Histograms = ascending(s.Histograms, func(x *prompb.Histogram) int64 { return x.Timestamp })
	for i := range s.Histograms {
		h := &s.Histograms[i]
		if h.IsFloatHistogram() {
			err = h.ToFloatHistogram().Validate()
		} else {
			err = h.ToIntHistogram().Validate()
		}
		if err != nil {
			return nil, fmt.Errorf("the histogram at %s: %w", at(h.Timestamp), err)
		}
	}
	// Upstream looks at labels here, and at nothing more that is ours to refuse.
	set := remote.FromQueryResult(false, &prompb.QueryResult{Timeseries: []*prompb.TimeSeries{{Samples: s.Samples, Histograms: s.Histograms}}})
	var all []intake.Chunk
	for set.Next() {
		it := storage.NewSeriesToChunkEncoder(set.At()).Iterator(nil)
		for it.Next() {
			c := it.At()
			all = append(all, intake.Chunk{Chunk: c.Chunk, MinMillis: c.MinTime, MaxMillis: c.MaxTime})
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	var check intake.ChunkCheck
	for i := range all {
		// A float and a histogram at one time: the check tells.
		if _, err := check.Chunk(all[i].Chunk.Encoding(), all[i].Chunk.Bytes(), math.MinInt64, math.MaxInt64); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ascending puts samples in order if they are not. Of equal times the last stays.
func ascending[S any](all []S, time func(*S) int64) []S {
	inOrder := true
	for i := 1; i < len(all); i++ {
		inOrder = inOrder && time(&all[i-1]) < time(&all[i])
	}
	if inOrder {
		return all
	}
	slices.SortStableFunc(all, func(a, b S) int { return cmp.Compare(time(&a), time(&b)) })
	kept := all[:0]
	for i := range all {
		if n := len(kept); n > 0 && time(&kept[n-1]) == time(&all[i]) {
			kept[n-1] = all[i]
			continue
		}
		kept = append(kept, all[i])
	}
	return kept
}

// queryFetcher asks a storage in this process.
type queryFetcher struct{ q storage.ChunkQueryable }

func (f *queryFetcher) close() {}

func (f *queryFetcher) fetch(ctx context.Context, from, to int64, selector []*labels.Matcher, emit func(labels.Labels, []intake.Chunk) error) (err error) {
	q, err := f.q.ChunkQuerier(from, to)
	if err != nil {
		return errors.Join(errLocal, err)
	}
	defer func() {
		if closing := q.Close(); closing != nil {
			err = errors.Join(errLocal, err, closing)
		}
	}()
	set := q.Select(ctx, true, &storage.SelectHints{Start: from, End: to}, selector...)
	var it chunks.Iterator
	var some []intake.Chunk
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		some = some[:0]
		for it.Next() {
			c := it.At()
			some = append(some, intake.Chunk{Chunk: c.Chunk, MinMillis: c.MinTime, MaxMillis: c.MaxTime})
		}
		if err := it.Err(); err != nil {
			return errors.Join(errLocal, fmt.Errorf("series %s: %w", s.Labels(), err))
		}
		if err := emit(s.Labels(), some); err != nil {
			return errors.Join(errLocal, err)
		}
	}
	if err := set.Err(); err != nil {
		return errors.Join(errLocal, err)
	}
	return nil
}
