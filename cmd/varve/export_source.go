package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/archive"
	"varve/config"
	"varve/export"
)

// exportSource is a data directory or a server, opened.
type exportSource struct {
	source   *export.Source
	metadata func(metricFamily string) (metadata.Metadata, bool)
	// origin tells it from others.
	origin string
	// min and max bound what it has, both inclusive, as far as is known.
	min, max int64
	close    func() error
}

func (f *exportFlags) open() (*exportSource, error) {
	switch {
	case *f.data != "" && *f.url != nil:
		return nil, errors.New("give --data or --url, not both")
	case *f.data != "":
		c, err := config.Read(*f.config, nil)
		if err != nil {
			return nil, err
		}
		return openExportData(*f.data, c, f.stderr)
	case *f.url != nil:
		return openExportServer(*f.url, *f.httpFile)
	}
	return nil, errors.New("give --data DIR, a data directory that no server runs on, or --url URL, a server")
}

// exportBytesMax bounds the coded samples of one Select. More series than fit are read one after the other.
const exportBytesMax = 256 << 20

func openExportData(dir string, c *config.Config, stderr io.Writer) (*exportSource, error) {
	if err := archive.Exists(dir); err != nil {
		return nil, err
	}
	kept, err := retention(c)
	if err != nil {
		return nil, err
	}
	a, err := archive.Open(dir, archive.Options{
		Manual: true, Resolutions: resolutions(c), Retention: kept, QuerySeriesMax: math.MaxInt32, QueryBytesMax: exportBytesMax,
		Events: archive.Events{Damaged: func(err error) { fmt.Fprintln(stderr, err) }},
	})
	if err != nil {
		return nil, err
	}
	<-a.Started()
	s, err := exportData(a, dir)
	if err != nil {
		return nil, closeAfter(a, err)
	}
	return s, nil
}

func exportData(a *archive.Archive, dir string) (*exportSource, error) {
	if err := a.StartError(); err != nil {
		return nil, err
	}
	// The days of samples are known when none are in memory alone.
	if err := a.Maintain(true); err != nil {
		return nil, err
	}
	survey, err := a.Survey(context.Background(), 1)
	if err != nil {
		return nil, err
	}
	whole, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &exportSource{
		source: &export.Source{
			Queryable: a, Rolled: func(mint, maxt int64) (export.RolledQuerier, error) { return openExportRolled(a, mint, maxt) },
			TooLarge: func(err error) bool { return errors.Is(err, archive.ErrQueryLimit) },
		},
		metadata: a.MetadataOf, origin: "data " + whole, min: survey.MinMillis, max: survey.MaxMillis, close: a.Close,
	}, nil
}

// exportRolled is a view of an archive as the export of aggregates wants it.
type exportRolled struct{ archiveQuerier }

func openExportRolled(a *archive.Archive, mint, maxt int64) (export.RolledQuerier, error) {
	q, err := a.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	known, ok := q.(archiveQuerier)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a querier of type %T has no rollups", q), q.Close())
	}
	return exportRolled{known}, nil
}

// SelectRolled implements export.RolledQuerier.
func (q exportRolled) SelectRolled(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) export.RolledSet {
	return exportRolledSet{q.SelectArchived(ctx, mint, maxt, ms...)}
}

type exportRolledSet struct{ *archive.ArchivedSet }

// At implements export.RolledSet.
func (s exportRolledSet) At() export.RolledSeries { return s.ArchivedSet.At() }

// exportServer asks a server: for series the API, for samples remote read.
type exportServer struct {
	base   *url.URL
	client *http.Client
	read   storage.SampleAndChunkQueryable
}

func openExportServer(base *url.URL, httpFile string) (*exportSource, error) {
	http := config_util.DefaultHTTPClientConfig
	if httpFile != "" {
		loaded, _, err := config_util.LoadHTTPConfigFile(httpFile)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", httpFile, err)
		}
		http = *loaded
	}
	client, err := config_util.NewClientFromConfig(http, "varve export")
	if err != nil {
		return nil, err
	}
	reader, err := remote.NewReadClient("varve export", &remote.ClientConfig{
		URL: &config_util.URL{URL: base.JoinPath("/api/v1/read")}, Timeout: model.Duration(time.Hour), HTTPClientConfig: http,
		ChunkedReadLimit: promconfig.DefaultChunkedReadLimit,
	})
	if err != nil {
		return nil, err
	}
	always := func() (int64, error) { return math.MaxInt64, nil }
	s := &exportServer{base: base, client: client, read: remote.NewSampleAndChunkQueryableClient(reader, labels.EmptyLabels(), nil, true, always)}
	plain := *base
	plain.User, plain.RawQuery, plain.Fragment = nil, "", ""
	return &exportSource{
		source:   &export.Source{Queryable: s, TooLarge: tooLargeForServer},
		metadata: s.metadata(), origin: "server " + plain.String(), min: math.MinInt64, max: time.Now().UnixMilli(),
		close: func() error { client.CloseIdleConnections(); return nil },
	}, nil
}

// tooLargeForServer tells whether a server said that a request was too large, in the words of Prometheus or Varve.
func tooLargeForServer(err error) bool {
	text := err.Error()
	return slices.ContainsFunc([]string{"sample limit", "too many samples", "too many series", "query limit exceeded"}, func(s string) bool {
		return strings.Contains(text, s)
	})
}

// Querier implements storage.Queryable.
func (s *exportServer) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.read.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &exportServerQuerier{q, s, mint, maxt}, nil
}

type exportServerQuerier struct {
	storage.Querier
	server     *exportServer
	mint, maxt int64
}

// Select implements storage.Querier. Servers differ in what they make of a remote read for series without samples.
func (q *exportServerQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if hints == nil || hints.Func != "series" {
		return q.Querier.Select(ctx, sorted, hints, ms...)
	}
	sets, err := q.server.series(ctx, q.mint, q.maxt, ms)
	if err != nil {
		return storage.ErrSeriesSet(fmt.Errorf("ask %s for series: %w", q.server.base.Redacted(), err))
	}
	return &listedSeries{sets: sets, at: -1}
}

// series asks for the series of a selector, sorted.
func (s *exportServer) series(ctx context.Context, mint, maxt int64, ms []*labels.Matcher) (sets []labels.Labels, err error) {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	u := s.base.JoinPath("/api/v1/series")
	// The servers round up, or not: ask for more.
	form := url.Values{"match[]": {"{" + strings.Join(texts, ",") + "}"}, "start": {apiTime(floorSeconds(mint))}, "end": {apiTime(floorSeconds(maxt) + 1000)}}
	err = s.ask(ctx, u, form, func(d *json.Decoder) error {
		for d.More() {
			set := map[string]string{}
			if err := d.Decode(&set); err != nil {
				return err
			}
			sets = append(sets, labels.FromMap(set))
		}
		return nil
	})
	slices.SortFunc(sets, labels.Compare)
	return sets, err
}

func floorSeconds(millis int64) int64 { return millis - (millis%1000+1000)%1000 }

func apiTime(millis int64) string { return strconv.FormatFloat(float64(millis)/1000, 'f', 3, 64) }

// ask posts a form and calls f with the decoder inside of the answer's data, an array or an object.
func (s *exportServer) ask(ctx context.Context, u *url.URL, form url.Values, f func(*json.Decoder) error) (err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	if form == nil {
		r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // What it says is told, if it says something.
		return fmt.Errorf("server answered %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	d := json.NewDecoder(answer.Body)
	for {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if t == "data" {
			break
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if err := f(d); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	// What is cut off has no end of the array.
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// metadata returns a func that asks the server at its first call. Without an answer nothing is known.
func (s *exportServer) metadata() func(string) (metadata.Metadata, bool) {
	var known map[string]metadata.Metadata
	return func(family string) (metadata.Metadata, bool) {
		if known == nil {
			known = map[string]metadata.Metadata{}
			// A server without metadata is no reason to export nothing.
			_ = s.ask(context.Background(), s.base.JoinPath("/api/v1/metadata"), nil, func(d *json.Decoder) error {
				for d.More() {
					name, err := d.Token()
					if err != nil {
						return err
					}
					var all []struct{ Type, Help, Unit string }
					if err := d.Decode(&all); err != nil {
						return err
					}
					if text, ok := name.(string); ok && len(all) > 0 {
						known[text] = metadata.Metadata{Type: model.MetricType(all[0].Type), Help: all[0].Help, Unit: all[0].Unit}
					}
				}
				return nil
			})
		}
		m, ok := known[family]
		return m, ok
	}
}

// listedSeries are series without samples.
type listedSeries struct {
	sets []labels.Labels
	at   int
}

// Next implements storage.SeriesSet.
func (s *listedSeries) Next() bool { s.at++; return s.at < len(s.sets) }

// At implements storage.SeriesSet.
func (s *listedSeries) At() storage.Series {
	return &storage.SeriesEntry{Lset: s.sets[s.at], SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return chunkenc.NewNopIterator() }}
}

// Err implements storage.SeriesSet.
func (*listedSeries) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (*listedSeries) Warnings() annotations.Annotations { return nil }

// parseTime reads RFC 3339, a date, or Unix seconds as Unix ms.
func parseTime(s string) (int64, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e12 {
		return int64(math.Round(seconds * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is neither RFC 3339, as 2026-01-31T12:00:00Z, nor a date, nor Unix seconds", s)
	}
	return t.UnixMilli(), nil
}

func parseExportLabel(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || !model.LegacyValidation.IsValidLabelName(name) || value == "" {
		return "", "", fmt.Errorf("--external-label %s: not of the form name=value", s)
	}
	return name, strings.Trim(value, `"`), nil
}
