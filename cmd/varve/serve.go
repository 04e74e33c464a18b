package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/run"
	"github.com/prometheus/common/promslog"

	"varve/config"
)

func addServe(app *kingpin.Application, stderr io.Writer) {
	cmd := app.Command("serve", "Run the server. Flags override the configuration file, which overrides the defaults.")
	file := cmd.Flag("config.file", "Configuration file; \"varve config\" prints one.").PlaceHolder("FILE").String()
	flags := addFlags(cmd)
	back := addLookBack(cmd, stderr)
	cmd.Action(func(*kingpin.ParseContext) error {
		if *back.id == "" && *back.file != "" {
			return errors.New("--objstore.config-file is where --snapshot fetches from; where the server's own snapshots go is snapshots.objstore_config_file in the configuration")
		}
		if *back.id != "" {
			path, err := back.prepare(*file)
			if err != nil {
				return err
			}
			flags.last = func(c *config.Config) { c.LookBack(path) }
		}
		err := serve(*file, flags, *back.id != "", stderr)
		if mistakes, ok := errors.AsType[*config.Mistakes](err); ok {
			fmt.Fprintln(stderr, mistakes)
			return errFound
		}
		return err
	})
}

// serve runs the server until a signal or a request stops it, then returns nil,
// or until one of its parts fails.
func serve(configFile string, flags *overrides, lookBack bool, stderr io.Writer) error {
	c, err := config.Read(configFile, flags.apply)
	if err != nil {
		return err
	}
	logger, level, err := newLogger(c, stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Web.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen: %w; choose another address with --web.listen-address", err)
	}
	s, err := newServer(serverOptions{
		config: c, configFile: configFile, flags: flags, logger: logger, logLevel: level, address: listener.Addr(), lookBack: lookBack,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	announce(logger, s, c)

	// Parts are told to stop in the order in which they are added, and what writes
	// has ended before the next is told: no request comes any more when the self
	// scrape ends, and nothing writes any more when the archive is closed.
	var g run.Group
	addSignals(&g, s, logger)
	g.Add(func() error { return s.web.Serve(listener) }, s.drain)
	g.Add(s.scrape.run, s.scrape.stop)
	tuner := newGCTuner()
	g.Add(tuner.run, tuner.stop)
	g.Add(s.runArchive, s.stopArchive)
	err = g.Run()
	switch {
	case errors.Is(err, errStopped):
		logger.Info("Stopped.")
		return s.closeError()
	default:
		return errors.Join(err, s.closeError())
	}
}

// errStopped is how the group ends when it was asked to.
var errStopped = errors.New("stopped")

// addSignals stops the group at SIGTERM, SIGINT or a request to quit, and reads
// the configuration again at SIGHUP.
func addSignals(g *run.Group, s *server, logger *slog.Logger) {
	stop := make(chan os.Signal, 1)
	reload := make(chan os.Signal, 1)
	ended := make(chan struct{})
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(reload, syscall.SIGHUP)
	g.Add(func() error {
		for {
			select {
			case sig := <-stop:
				logger.Info("Stopping.", "signal", sig.String())
				s.tellManager(notifyStopping, "Stopping.")
				return errStopped
			case <-s.quit:
				logger.Info("Stopping.", "request", "/-/quit")
				s.tellManager(notifyStopping, "Stopping.")
				return errStopped
			case <-reload:
				// The error was logged where it happened; the old configuration holds.
				_ = s.reload()
			case <-ended:
				return nil
			}
		}
	}, func(error) {
		signal.Stop(stop)
		signal.Stop(reload)
		close(ended)
	})
}

// drain answers open requests and refuses new ones.
func (s *server) drain(error) {
	// A request may wait for the compactor, or for a snapshot.
	if c := s.compacting.Load(); c != nil {
		c.end()
	}
	if p := s.snapshots.Load(); p != nil {
		p.end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var inputs sync.WaitGroup
	inputs.Go(func() { s.drainInputs(ctx) })
	if err := s.web.Shutdown(ctx); err != nil {
		s.o.logger.Warn("Some requests were cut off.", "err", err)
	}
	inputs.Wait()
}

// drainInputs ends the inputs, if there are any, with what they have received.
func (s *server) drainInputs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if in := s.inputs.Load(); in != nil {
		in.stop(ctx)
	}
}

func newLogger(c *config.Config, stderr io.Writer) (*slog.Logger, *promslog.Level, error) {
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if err := errors.Join(level.Set(c.Log.Level), format.Set(c.Log.Format)); err != nil {
		return nil, nil, err
	}
	return promslog.New(&promslog.Config{Level: level, Format: format, Writer: stderr}), level, nil
}

// announce says what a new user needs to know, and warns of an open door.
func announce(logger *slog.Logger, s *server, c *config.Config) {
	base := strings.TrimRight(s.externalURL.String(), "/")
	logger.Info("Varve starts.", "version", buildVersion().Version, "data", s.dataDir, "address", s.o.address.String())
	if s.o.lookBack {
		logger.Info("This is a look back at a snapshot: queries are answered, and nothing is taken in.")
	} else {
		logger.Info("Point Prometheus here.", "remote_write_url", base+"/api/v1/write")
	}
	logger.Info("Point Grafana here, as a Prometheus data source.", "url", base)
	logger.Info("Memory.", "engine_bytes", s.engineBytes, "go_limit_bytes", s.heapLimitBytes)
	loopback := isLoopback(s.o.address)
	if loopback && c.Web.ExternalURL == "" {
		logger.Info("Only this machine can connect; --web.listen-address=:9095 lets others in.")
	}
	if !loopback && !s.guard.Policy().Secured() {
		logger.Warn("EVERYBODY WHO REACHES THIS ADDRESS MAY READ AND WRITE ALL METRICS. Set web.tokens or web.config_file, or listen on 127.0.0.1.", "address", s.o.address.String())
	}
	if c.Storage.Sync != syncAlways {
		logger.Warn("Writes are acknowledged before they are synced: a power cut loses what was acknowledged since the last sync.", "sync_interval", c.Storage.SyncInterval.String())
	}
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
