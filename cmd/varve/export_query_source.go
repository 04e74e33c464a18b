package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/promql"
	"golang.org/x/net/http/httpguts"

	"varve/api"
	"varve/archive"
	"varve/config"
	"varve/export/result"
	"varve/query"
)

// defaultExportURL is Varve on this machine.
var defaultExportURL = &url.URL{Scheme: "http", Host: "127.0.0.1:9095"}

// open opens what the flags name.
func (f *exportQuery) open() (source result.Source, closeSource func() error, err error) {
	named := 0
	for _, is := range []bool{*f.dir != "", *f.url != nil, *f.back.id != ""} {
		if is {
			named++
		}
	}
	if named > 1 {
		return nil, nil, errors.New("give a data directory, --url or --snapshot, one of them")
	}
	if *f.back.id == "" && *f.back.file != "" {
		return nil, nil, errors.New("--objstore.config-file is where --snapshot fetches from: give that too")
	}
	switch {
	case *f.dir != "":
		c, err := config.Read(*f.config, nil)
		if err != nil {
			return nil, nil, err
		}
		return f.openDir(*f.dir, c)
	case *f.back.id != "":
		dir, err := f.back.prepare(*f.config)
		if err != nil {
			return nil, nil, err
		}
		c, err := config.Read(*f.config, nil)
		if err != nil {
			return nil, nil, err
		}
		// What is in the snapshot counts, whatever expired since.
		c.LookBack(dir)
		return f.openDir(dir, c)
	}
	return f.openServer()
}

// openServer makes a client of a server.
func (f *exportQuery) openServer() (result.Source, func() error, error) {
	if *f.resolution != "" {
		if _, err := query.ParseResolution(*f.resolution); err != nil {
			return nil, nil, err
		}
	}
	header, err := parseHeaders(*f.headers)
	if err != nil {
		return nil, nil, err
	}
	connect, err := httpConfig(*f.httpFile)
	if err != nil {
		return nil, nil, err
	}
	client, err := config_util.NewClientFromConfig(connect, "varve export")
	if err != nil {
		return nil, nil, err
	}
	// A POST that is redirected becomes a GET without its query.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	base := *f.url
	if base == nil {
		base = defaultExportURL
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, nil, fmt.Errorf("--url %s: it must begin with http:// or https:// and a host", base.Redacted())
	}
	return &result.Server{
		URL: base, HTTP: client, Header: header, Timeout: *f.timeout, Resolution: *f.resolution, Wait: waitFor,
		Retrying: func(err error, in time.Duration) {
			fmt.Fprintf(f.stderr, "%v; trying again in %s.\n", err, in)
		},
	}, func() error { client.CloseIdleConnections(); return nil }, nil
}

// parseHeaders reads name:value.
func parseHeaders(texts []string) (http.Header, error) {
	h := http.Header{}
	for _, t := range texts {
		name, value, ok := strings.Cut(t, ":")
		value = strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("--http.header: %q is not of the form NAME:VALUE", name)
		}
		h[textproto.CanonicalMIMEHeaderKey(name)] = append(h[textproto.CanonicalMIMEHeaderKey(name)], value)
	}
	return h, nil
}

// openDir opens an archive as a server would, but for work in the background, with the engine and its limits.
func (f *exportQuery) openDir(dir string, c *config.Config) (result.Source, func() error, error) {
	if err := archive.Exists(dir); err != nil {
		return nil, nil, err
	}
	kept, err := retention(c)
	if err != nil {
		return nil, nil, err
	}
	logger := promslog.New(&promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: f.stderr})
	s := &server{o: serverOptions{config: c, logger: logger}, registry: prometheus.NewRegistry(), heapLimitBytes: math.MaxInt64}
	engine, err := s.newEngine()
	if err != nil {
		return nil, nil, err
	}
	a, err := archive.Open(dir, archive.Options{
		Manual: true, Resolutions: resolutions(c), Retention: kept, QuerySeriesMax: c.Query.MaxSeries, QueryBytesMax: s.sizeOr(c.Query.MaxSize, 4, 1<<30),
		Events: archive.Events{Damaged: func(err error) { fmt.Fprintln(f.stderr, err) }},
	})
	if err != nil {
		return nil, nil, errors.Join(err, engine.Close())
	}
	<-a.Started()
	if err := a.StartError(); err != nil {
		return nil, nil, errors.Join(err, closeBoth(engine, a))
	}
	source, err := api.QuerySource(engine, archiveStorage{a}, *f.resolution, func(err error) bool {
		_, late := errors.AsType[promql.ErrQueryTimeout](err)
		return late || errors.Is(err, archive.ErrQueryLimit)
	})
	if err != nil {
		return nil, nil, errors.Join(err, closeBoth(engine, a))
	}
	return source, func() error { return closeBoth(engine, a) }, nil
}

// parseStep reads seconds or a duration as ms.
func parseStep(s string) (int64, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e9 {
		return int64(math.Round(seconds * 1000)), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is neither seconds nor a duration such as 5m", s)
	}
	return time.Duration(d).Milliseconds(), nil
}
