// Package scrape scrapes targets as Prometheus does, with upstream's own scrape
// manager and service discovery.
//
// A Scraper is one input: it has its own scrape configurations, its own metrics under
// the label input, and writes to its own storage.AppendableV2, which the archive's
// ingest.Appendable is. All settings of scrape_configs are upstream's, and so are up
// and the other series about a scrape, staleness, relabelling and limits. Targets
// come from static_configs, file_sd_configs, http_sd_configs and dns_sd_configs; the
// others would each bring the SDK of a cloud.
//
// A tolerant Scraper loses a line that can't be read instead of the whole scrape:
// see relay. Repeated samples with timestamps of their own are left out by the
// Appendable, where it is told to (SkipRepeated).
//
// Merged joins what several scrapers say of their targets for the API.
package scrape

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/logging"

	// What registers itself here can stand in scrape_configs.
	_ "github.com/prometheus/prometheus/discovery/dns"
	_ "github.com/prometheus/prometheus/discovery/file"
	_ "github.com/prometheus/prometheus/discovery/http"
)

// Options of a Scraper.
type Options struct {
	// Name is the input's: the value of the label input of all metrics, which upstream
	// calls prometheus_target_..., prometheus_sd_... Other scrape managers in the
	// same registry need that label too.
	Name string
	// Dir is what file names in scrape configurations are relative to.
	Dir string
	// Appendable takes the samples.
	Appendable storage.AppendableV2
	// Tolerant leaves out lines that can't be read. It is not for targets behind
	// __unix_socket__.
	Tolerant bool
	// StartTimestamps stores the start timestamps that targets give. Series called
	// _created of OpenMetrics are read as such then, and not stored. Prometheus does
	// not by default.
	StartTimestamps bool
	// TypeAndUnitLabels adds __type__ and __unit__.
	TypeAndUnitLabels bool
	// DiscoveryInterval is how often changed targets are taken up; the default is
	// upstream's, 5 s.
	DiscoveryInterval time.Duration
	Registerer        prometheus.Registerer // may be nil
	Logger            *slog.Logger
	// Now is the clock of the rate of log lines; the default is time.Now. Scrapes
	// follow the system's clock.
	Now func() time.Time
}

// Scraper scrapes the targets of one input. Its life: New, Apply, Run; Apply again at
// each reload; after Run has returned, it is spent. Methods are safe for use by
// several goroutines.
type Scraper struct {
	o         Options
	logger    *slog.Logger
	discovery *discovery.Manager
	sdMetrics *discovery.SDMetrics
	manager   *scrape.Manager
	// relay is nil unless the scraper is tolerant.
	relay  *relay
	cancel context.CancelFunc
	// applying keeps two configurations from being mixed.
	applying sync.Mutex
	closing  sync.Once
}

// discoveryInterval is upstream's default.
const discoveryInterval = 5 * time.Second

// New returns a Scraper without targets. End it with Run, or with Close if it never runs.
func New(o Options) (*Scraper, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DiscoveryInterval <= 0 {
		o.DiscoveryInterval = discoveryInterval
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	registerer := prometheus.WrapRegistererWith(prometheus.Labels{"input": o.Name}, o.Registerer)
	s := &Scraper{o: o, logger: o.Logger.With("input", o.Name)}
	options := &scrape.Options{
		AppendMetadata: true, ParseST: o.StartTimestamps, EnableTypeAndUnitLabels: o.TypeAndUnitLabels,
		DiscoveryReloadInterval: model.Duration(o.DiscoveryInterval), DiscoveryReloadOnStartup: true,
	}
	if o.Tolerant {
		var err error
		if s.relay, err = newRelay(s.logger, registerer, o.Now); err != nil {
			return nil, fmt.Errorf("input %q: %w", o.Name, err)
		}
		options.HTTPClientOptions = s.relay.clientOptions()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	err := s.start(ctx, registerer, options)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("input %q: %w", o.Name, err), s.Close())
	}
	return s, nil
}

// start makes the managers, whose goroutines live until ctx ends.
func (s *Scraper) start(ctx context.Context, registerer prometheus.Registerer, options *scrape.Options) error {
	var err error
	if s.sdMetrics, err = discovery.CreateAndRegisterSDMetrics(registerer); err != nil {
		return err
	}
	s.discovery = discovery.NewManager(ctx, s.logger, registerer, s.sdMetrics, discovery.Name("scrape"), discovery.Updatert(s.o.DiscoveryInterval))
	if s.discovery == nil {
		return errors.New("service discovery could not be set up: the log says why")
	}
	s.manager, err = scrape.NewManager(options, s.logger, logging.NewJSONFileLogger, nil, s.o.Appendable, registerer)
	return err
}

// Apply makes the text of scrape_configs the configuration: either the list itself, or a
// document as in a Prometheus configuration file with global, scrape_configs and
// scrape_config_files. Targets that stay keep being scraped in their rhythm. An error
// about the text names the job it is in, and leaves everything as it was.
func (s *Scraper) Apply(text []byte) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	c, jobs, err := load(text, s.o.Dir, s.logger)
	if err != nil {
		return fmt.Errorf("input %q: %w", s.o.Name, err)
	}
	discoveries := make(map[string]discovery.Configs, len(jobs))
	for _, job := range jobs {
		discoveries[job.JobName] = job.ServiceDiscoveryConfigs
	}
	var asked map[string]*relayJob
	if s.relay != nil {
		if c, asked, err = s.relay.relayed(c, jobs); err != nil {
			return fmt.Errorf("input %q: %w", s.o.Name, err)
		}
	}
	if err := s.manager.ApplyConfig(c); err != nil {
		return fmt.Errorf("input %q: %w", s.o.Name, err)
	}
	if s.relay != nil {
		s.relay.replace(asked)
	}
	if err := s.discovery.ApplyConfig(discoveries); err != nil {
		return fmt.Errorf("input %q: service discovery: %w", s.o.Name, err)
	}
	return nil
}

// Run scrapes until ctx ends, and returns when the last samples are written.
func (s *Scraper) Run(ctx context.Context) error {
	discovered := make(chan error, 1)
	go func() { discovered <- s.discovery.Run() }()
	scraped := make(chan error, 1)
	go func() { scraped <- s.manager.Run(s.discovery.SyncCh()) }()
	<-ctx.Done()
	s.cancel()
	<-discovered // says only that its context has ended
	s.manager.Stop()
	return errors.Join(<-scraped, s.Close())
}

// Close gives back what a Scraper holds that never ran. Run does it itself.
func (s *Scraper) Close() (err error) {
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *Scraper) close() error {
	s.cancel()
	if s.manager != nil {
		s.manager.UnregisterMetrics()
	}
	if s.discovery != nil {
		s.discovery.UnregisterMetrics()
	}
	if s.sdMetrics != nil {
		for _, m := range s.sdMetrics.MechanismMetrics {
			m.Unregister()
		}
		s.sdMetrics.RefreshManager.Unregister()
	}
	if s.relay != nil {
		return s.relay.close()
	}
	return nil
}

// Targets tells what is scraped, for the API.
func (s *Scraper) Targets() Retriever { return s.manager }

var _ Retriever = (*scrape.Manager)(nil)
