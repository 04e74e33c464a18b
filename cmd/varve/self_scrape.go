package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"

	"varve/config"
)

// selfScrapeJob is the job label of the server's own metrics.
const selfScrapeJob = "varve"

// selfScrape stores the server's own metrics in the archive, through upstream's
// scrape manager, so that they look like any target's: up, stale markers,
// metadata and all. It reads them through pipes inside the process, so it needs
// neither credentials nor certificates, whatever the server asks of others.
//
// Its life: newSelfScrape, run and stop as an actor of the run group, begin once
// there is an archive to write to, apply at each reload.
type selfScrape struct {
	logger   *slog.Logger
	registry *prometheus.Registry
	instance string
	pipes    *pipeListener
	metrics  *http.Server
	manager  *scrape.Manager
	sink     *lateAppendable
	groups   chan map[string][]*targetgroup.Group
	stopped  chan struct{}
	ended    chan struct{}
}

func newSelfScrape(logger *slog.Logger, registry *prometheus.Registry, instance string) (*selfScrape, error) {
	s := &selfScrape{
		logger: logger, registry: registry, instance: instance, pipes: newPipeListener(), sink: &lateAppendable{},
		groups: make(chan map[string][]*targetgroup.Group, 1), stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	s.metrics = &http.Server{
		Handler:           promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}),
		ReadHeaderTimeout: time.Second,
	}
	var err error
	s.manager, err = scrape.NewManager(&scrape.Options{
		AppendMetadata:           true,
		DiscoveryReloadOnStartup: true,
		DiscoveryReloadInterval:  model.Duration(time.Second),
		HTTPClientOptions:        []config_util.HTTPClientOption{config_util.WithDialContextFunc(s.pipes.dial)},
	}, logger, nil, nil, s.sink, prometheus.WrapRegistererWith(prometheus.Labels{"input": selfScrapeJob}, registry))
	if err != nil {
		return nil, fmt.Errorf("self scrape: %w", err)
	}
	return s, nil
}

// begin lets scraping start into sink.
func (s *selfScrape) begin(sink storage.AppendableV2, c config.SelfScrape) error {
	s.sink.set(sink)
	return s.apply(c)
}

// apply makes c the configuration of scraping, once it has begun.
func (s *selfScrape) apply(c config.SelfScrape) error {
	if !s.sink.known() {
		return nil
	}
	groups := map[string][]*targetgroup.Group{}
	text := "scrape_configs: []\n"
	if c.Enabled {
		text = fmt.Sprintf("scrape_configs:\n- job_name: %s\n  scrape_interval: %s\n  scrape_timeout: %s\n  scrape_native_histograms: true\n",
			selfScrapeJob, c.Interval, min(c.Interval, config.Duration(10*time.Second)))
		groups[selfScrapeJob] = []*targetgroup.Group{{Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(s.instance)}}}}
	}
	conf, err := promconfig.Load(text, promslog.NewNopLogger())
	if err != nil {
		return fmt.Errorf("self scrape: %w", err)
	}
	if err := s.manager.ApplyConfig(conf); err != nil {
		return fmt.Errorf("self scrape: %w", err)
	}
	select {
	case s.groups <- groups:
	case <-s.stopped:
	}
	return nil
}

// run scrapes until stop.
func (s *selfScrape) run() error {
	defer close(s.ended)
	served := make(chan error, 1)
	go func() { served <- s.metrics.Serve(s.pipes) }()
	managed := make(chan error, 1)
	go func() { managed <- s.manager.Run(s.groups) }()
	<-s.stopped
	s.manager.Stop()
	err := errors.Join(<-managed, s.metrics.Close())
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// stop ends run and returns when the last samples are written.
func (s *selfScrape) stop(error) {
	close(s.stopped)
	<-s.ended
}

// lateAppendable refuses samples until it knows where they go.
type lateAppendable struct {
	mu   sync.RWMutex // guards next
	next storage.AppendableV2
}

func (l *lateAppendable) set(next storage.AppendableV2) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = next
}

func (l *lateAppendable) known() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.next != nil
}

// AppenderV2 implements storage.AppendableV2. No target is scraped before set.
func (l *lateAppendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.next.AppenderV2(ctx)
}

// pipeListener is a listener inside the process.
type pipeListener struct {
	conns     chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial connects to the listener, whatever the address.
func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "inside the process" }
