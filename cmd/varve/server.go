package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"varve/api"
	"varve/api/access"
	"varve/archive"
	"varve/config"
	"varve/ingest"
	"varve/query"
)

// drainTimeout is how long open requests may take after a stop was asked for. It
// leaves 5 s of the 30 s after which service managers kill to close the archive.
const drainTimeout = 25 * time.Second

// syncAlways is the value of storage.sync that syncs before acknowledging.
const syncAlways = "always"

// overwritesReject is the value of ingest.overwrites that refuses them.
const overwritesReject = "reject"

type serverOptions struct {
	config     *config.Config
	configFile string
	flags      *overrides
	logger     *slog.Logger
	logLevel   *promslog.Level
	address    net.Addr
	// lookBack makes a server that only answers queries.
	lookBack bool
}

// server is the whole process:
//
//	    senders            Grafana, scrapers, operators
//	       |                         |
//	+------v-------------------------v------+
//	| web: api.Server > access.Guard        |   answers 503 until there is an API
//	+------+-------------------------+------+
//	       |                  +------v------+
//	       |                  |  api.API    |   upstream's web/api/v1, federation, status
//	       |                  +------+------+
//	+------v------+           +------v------+      +-----------+
//	| remotewrite |           |   query     |      | scrape    |  own metrics, job varve
//	+------+------+           +------+------+      +-----+-----+
//	       |                         |                   | ingest.Appendable
//	       | ingest.Sink             | storage.Queryable |
//	+------v-------------------------v-------------------v-----+
//	| archive                                                  <---- compactor: seals days
//	|                                                          +---> forward: outputs, from cursors
//	+------+---------------------------------------------------+
//	       |
//	     rocks
//
// The web server and the self scrape exist from the start; the archive is opened
// by its actor of the run group, which then puts together what stands on it.
type server struct {
	o           serverOptions
	dataDir     string
	externalURL *url.URL
	started     time.Time

	engineBytes, heapLimitBytes int64

	registry *prometheus.Registry
	metrics  *serverMetrics
	guard    *access.Guard
	// denied counts what guards refuse.
	denied func(access.Group, int)
	web    *api.Server
	scrape *selfScrape

	quit     chan struct{}
	quitOnce sync.Once
	// stopping is closed to make the archive's actor end.
	stopping chan struct{}
	closeErr error // of the archive; set before the group ends
	// compacting, snapshots, inputs and checking are set once there is an archive.
	compacting atomic.Pointer[compacting]
	snapshots  atomic.Pointer[snapshots]
	inputs     atomic.Pointer[inputs]
	checking   atomic.Pointer[checking]
	// faults are those that were met since the start.
	faults faultLog

	// reloadMu is held while a configuration is read and put into effect, and while
	// what depends on one is put together late.
	reloadMu sync.Mutex
	archive  *archive.Archive // nil until it is open
	// forwarding is nil until then too. It is given outputs when the journal is read back.
	forwarding *forwarding
	// current is the configuration in effect.
	current    atomic.Pointer[config.Config]
	reloadedAt atomic.Int64 // Unix ms of the last good one
	reloadGood atomic.Bool
}

// newServer builds everything that needs no archive.
func newServer(o serverOptions) (*server, error) {
	c := o.config
	s := &server{o: o, started: time.Now(), registry: prometheus.NewRegistry(), quit: make(chan struct{}), stopping: make(chan struct{})}
	s.current.Store(c)
	s.reloadGood.Store(true)
	s.reloadedAt.Store(s.started.UnixMilli())
	var err error
	if s.dataDir, err = filepath.Abs(c.Storage.Path); err != nil {
		return nil, fmt.Errorf("storage.path: %w", err)
	}
	if s.externalURL, err = externalURL(c, o.address); err != nil {
		return nil, err
	}
	s.engineBytes = engineBytes(c)
	s.heapLimitBytes = limitHeap(s.engineBytes)
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.metrics = newServerMetrics(s.registry, s)

	policy, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	s.denied = api.DeniedCounter(s.registry)
	if s.guard, err = access.NewGuard(policy, s.externalURL, s.denied); err != nil {
		return nil, fmt.Errorf("web.external_url: %w", err)
	}
	if s.web, err = api.NewServer(api.ServerOptions{Guard: s.guard, Connections: c.Web.MaxConnections, Logger: o.logger}); err != nil {
		return nil, err
	}
	s.scrape, err = newSelfScrape(o.logger, s.registry, instanceOf(o.address))
	return s, err
}

// runArchive opens the archive and everything on it, and closes it all when the
// group stops.
func (s *server) runArchive() error {
	if err := os.MkdirAll(s.dataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w; choose another with --storage.path", err)
	}
	o, err := s.archiveOptions()
	if err != nil {
		return err
	}
	a, err := archive.Open(s.dataDir, o)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.dataDir, err)
	}
	engine, err := s.newEngine()
	compacting := s.newCompacting(a)
	forwarding := s.newForwarding(a, engine)
	snapshots, snapshotsErr := s.newSnapshots(a, compacting)
	if err = errors.Join(err, snapshotsErr); err == nil {
		err = s.useArchive(a, engine, compacting, forwarding, snapshots)
	}
	if err != nil {
		s.drainInputs(context.Background())
		if snapshots != nil {
			err = errors.Join(err, snapshots.stop())
		}
		return errors.Join(err, closeBoth(engine, a))
	}
	s.compacting.Store(compacting)
	s.snapshots.Store(snapshots)
	if s.o.lookBack {
		compacting.Pause()
	}
	go compacting.run()
	stopCanary := func() {}
	select {
	case <-a.Started():
		if err := a.StartError(); err != nil {
			s.drainInputs(context.Background())
			compacting.stop()
			err = errors.Join(err, snapshots.stop())
			return errors.Join(fmt.Errorf("read the journal back: %w; run varve check data %s", err, s.dataDir), closeBoth(engine, a))
		}
		s.o.logger.Info("Ready.", "after", time.Since(s.started).Round(time.Millisecond).String())
		s.tellManager(notifyReady, "Ready on "+s.o.address.String()+".")
		s.beginBackground(forwarding, snapshots)
		stopCanary = s.runCanary(a, engine)
	case <-s.stopping:
	}
	<-s.stopping
	stopCanary()
	if c := s.checking.Load(); c != nil {
		c.close()
	}
	s.drainInputs(context.Background())
	forwarding.stop()
	stopErr := snapshots.stop()
	compacting.stop()
	s.closeErr = errors.Join(stopErr, closeBoth(engine, a))
	return nil
}

// beginBackground begins what needs the journal to be read back.
func (s *server) beginBackground(forwarding *forwarding, snapshots *snapshots) {
	if s.o.lookBack {
		return
	}
	if err := forwarding.begin(s); err != nil {
		// What can't be forwarded must not keep samples from being taken.
		s.o.logger.Error("Outputs could not be begun.", "err", err)
	}
	snapshots.run()
}

func closeBoth(engine *query.Engine, a *archive.Archive) error {
	var err error
	if engine != nil {
		err = engine.Close()
	}
	return closeAfter(a, err)
}

// closeAfter closes the archive and returns err with the error of that.
func closeAfter(a *archive.Archive, err error) error {
	if closeErr := a.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close the archive: %w", closeErr))
	}
	return err
}

// useArchive puts together what stands on the archive and lets requests in.
func (s *server) useArchive(a *archive.Archive, engine *query.Engine, compacting *compacting, forwarding *forwarding, snapshots *snapshots) error {
	c := s.o.config
	s.metrics.watch(a)
	inputs := s.newInputs(a)
	o := api.Options{
		Guard: s.guard, Engine: engine, Storage: archiveStorage{a}, Catalogue: catalogue{a}, StorageStatus: s.faults.status, Queries: engine,
		Overview: s.newOverview(a), ReadStatistics: readStatistics, Canary: func() bool { return c.Canary.Enabled && !s.o.lookBack },
		Actions: api.Actions{
			Ready: a.StartError, Reload: s.reload, Quit: s.stop, ConfigYAML: func() string { return s.current.Load().YAML() },
			ExternalLabels: s.externalLabels, RuntimeInfo: s.runtimeInfo,
		},
		Inputs:  inputs,
		Targets: targets{s.scrape.manager, inputs},
		Limits: api.Limits{
			RegexBytes: int(c.Query.MaxRegex), FormBytes: int64(c.Query.MaxForm), Timeout: time.Duration(c.Query.Timeout),
			Concurrency: c.Query.MaxConcurrency, FederateSeries: c.Query.MaxFederatedSeries, RemoteReadSamples: c.Query.MaxRemoteReadSamples,
		},
		Parser: engine.Parser(), LookbackDelta: time.Duration(c.Query.LookbackDelta),
		Registry: s.registry, Logger: s.o.logger, Version: buildVersion(), Flags: shown(c, s.o.configFile),
		ExternalURL: s.externalURL, ListenAddress: s.o.address.String(),
		EnableAdmin: c.Web.EnableAdminAPI, EnableLifecycle: c.Web.EnableLifecycle,
	}
	if !s.o.lookBack {
		o.Compactor, o.Outputs, o.Snapshots, o.Intake = compacting, forwarding, snapshots, intakeHandlers(a, c)
		o.Deletes = deleting{compacting, func() time.Duration { return time.Duration(s.current.Load().Deletes.Grace) }}
	}
	if !s.o.lookBack {
		checking := s.newChecking(a)
		s.checking.Store(checking)
		o.Checker = checking
	}
	handler, err := api.New(o)
	if err != nil {
		return err
	}
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	// The rules may have been read again while the archive was opened.
	kept, err := retention(s.current.Load())
	if err != nil {
		return err
	}
	if err := a.SetRetention(kept); err != nil {
		return err
	}
	s.archive, s.forwarding = a, forwarding
	if err := s.scrape.begin(ingest.NewAppendable(a, inputs.limits, inputs.arrivals.For(selfScrapeJob), "scrape"), s.current.Load().SelfScrape); err != nil {
		return err
	}
	inputs.api = handler
	s.inputs.Store(inputs)
	if err := inputs.begin(s.current.Load()); err != nil {
		return err
	}
	s.web.Use(handler)
	return nil
}

// stopArchive ends runArchive.
func (s *server) stopArchive(error) { close(s.stopping) }

// closeError is the error of closing the archive, once the group has ended.
func (s *server) closeError() error { return s.closeErr }

// stop begins an orderly stop.
func (s *server) stop() { s.quitOnce.Do(func() { close(s.quit) }) }

func (s *server) externalLabels() labels.Labels {
	return labels.FromMap(s.current.Load().Federation.ExternalLabels)
}

func (s *server) runtimeInfo() (v1.RuntimeInfo, error) {
	wd, err := os.Getwd()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("working directory: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("host name: %w", err)
	}
	return v1.RuntimeInfo{
		StartTime: s.started.UTC(), CWD: wd, Hostname: host, ServerTime: time.Now().UTC(),
		ReloadConfigSuccess: s.reloadGood.Load(), LastConfigTime: time.UnixMilli(s.reloadedAt.Load()).UTC(),
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
		GOGC: gogc(), GODEBUG: os.Getenv("GODEBUG"), StorageRetention: retentionText(s.current.Load()),
	}, nil
}

// gogc returns the setting in effect. Prometheus' own answer is a text too.
func gogc() string {
	percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(percent)
	return strconv.FormatUint(percent[0].Value.Uint64(), 10)
}

// externalURL returns the configured URL, or the address that was bound in a
// form that works on this machine.
func externalURL(c *config.Config, bound net.Addr) (*url.URL, error) {
	if c.Web.ExternalURL != "" {
		return url.Parse(c.Web.ExternalURL)
	}
	scheme := "http"
	if c.Web.ConfigFile != "" {
		file, err := access.ReadWebFile(c.Web.ConfigFile)
		if err != nil {
			return nil, err
		}
		if file.TLS() {
			scheme = "https"
		}
	}
	return &url.URL{Scheme: scheme, Host: instanceOf(bound)}, nil
}

// instanceOf names the address: loopback and unspecified ones as localhost.
func instanceOf(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	host := tcp.IP.String()
	if tcp.IP.IsLoopback() || tcp.IP.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
