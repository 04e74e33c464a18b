package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	"varve/api"
	"varve/config"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/nats"
	"varve/ingest/opentsdb"
	"varve/ingest/otlp"
	"varve/ingest/remotewrite"
	"varve/ingest/scrape"
	"varve/ingest/text"
)

// remoteWritePaths are where senders of remote write expect a receiver: Prometheus, Thanos, Cortex and Mimir.
var remoteWritePaths = []string{"/api/v1/write", "/write", "/receive", "/api/v1/push", "/api/prom/push"}

// otlpPaths are where senders of OpenTelemetry do: Prometheus' own, that of the protocol, and VictoriaMetrics'.
var otlpPaths = []string{"/api/v1/otlp/v1/metrics", "/v1/metrics", "/opentelemetry/v1/metrics"}

// writePaths are where the kinds that take requests take samples.
var writePaths = map[string][]string{
	"remote_write": remoteWritePaths,
	"influxdb":     {"/write", "/api/v2/write", "/api/v1/import/influx"},
	"opentsdb":     {"/api/put"},
	"otlp":         otlpPaths,
	"import":       {"/api/v1/import/prometheus", "/api/v1/import/csv"},
}

// build makes what takes samples in the input's protocol.
func (i *inputs) build(in *input, limits ingest.Limits) error {
	arrivals, log := i.arrivals.For(in.conf.Name), i.s.o.logger.With("input", in.conf.Name)
	switch c := &in.conf; {
	case c.RemoteWrite != nil:
		h := remotewrite.New(in.door, limits, arrivals, log, time.Now, remotewrite.Options{
			TenantLabel: c.RemoteWrite.TenantLabel, OTelHistograms: c.RemoteWrite.OTelHistograms,
		})
		in.serve(h, remoteWritePaths...)
	case c.InfluxDB != nil:
		return i.buildInfluxDB(in, influxdb.New(in.door, limits, arrivals, log, time.Now, influxInputOptions(c.InfluxDB)))
	case c.OpenTSDB != nil && c.OpenTSDB.TelnetListenAddress != "":
		return i.buildTelnet(in, limits, arrivals)
	case c.OpenTSDB != nil:
		h, err := opentsdb.New(opentsdbInputOptions(c.OpenTSDB), in.door, limits, arrivals, log, time.Now)
		if err != nil {
			return err
		}
		in.serve(h, "/api/put")
		in.endpoints = append(in.endpoints, api.Endpoint{Path: "/api/version", Handler: opentsdb.Version(), Public: true})
	case c.OTLP != nil:
		h, err := otlp.New(in.door, limits, arrivals, log, time.Now, otlpInputOptions(c.OTLP, i.s.o.config))
		if err != nil {
			return err
		}
		in.serve(h, otlpPaths...)
	case c.Import != nil:
		h := text.New(in.door, limits, arrivals, log, time.Now, text.Options{})
		in.endpoints = []api.Endpoint{
			{Path: "/api/v1/import/prometheus", Handler: h.Prometheus(), Long: true},
			{Path: "/api/v1/import/csv", Handler: h.CSV(), Long: true},
		}
	case c.NATS != nil:
		return i.buildNATS(in, limits, arrivals)
	case c.Scrape != nil:
		return i.buildScrape(in, limits, arrivals)
	default:
		return fmt.Errorf("no input of kind %q", c.Kind())
	}
	return nil
}

// serve adds endpoints.
func (in *input) serve(h http.Handler, paths ...string) {
	for _, p := range paths {
		in.endpoints = append(in.endpoints, api.Endpoint{Path: p, Handler: h})
	}
}

func influxInputOptions(c *config.InfluxDBInput) influxdb.Options {
	o := influxNames(&c.InfluxNames)
	o.DatabaseLabel, o.RetentionPolicyLabel, o.BucketLabel, o.OrgLabel = c.DatabaseLabel, c.RetentionPolicyLabel, c.BucketLabel, c.OrgLabel
	return o
}

func influxNames(c *config.InfluxNames) influxdb.Options {
	o := influxdb.Options{Separator: c.Separator, AppendValue: c.AppendValue, TextLabels: c.TextLabels}
	if c.Names == "utf8" {
		o.Characters = influxdb.UTF8
	}
	if c.BareMeasurements != nil {
		o.BareMeasurements = append([]string{}, *c.BareMeasurements...)
	}
	return o
}

func (i *inputs) buildInfluxDB(in *input, h *influxdb.Input) error {
	c := in.conf.InfluxDB
	if c.UDPListenAddress != "" {
		precision, err := influxdb.ParsePrecision(c.Precision)
		if err != nil {
			return err
		}
		udp, err := h.ListenUDP(in.conf.Name, i.udp, influxdb.UDPOptions{Address: c.UDPListenAddress, Precision: precision})
		if err != nil {
			return err
		}
		in.address = udp.Addr().String()
		in.tasks = append(in.tasks, udp.Run)
		return nil
	}
	in.endpoints = []api.Endpoint{
		{Path: "/write", Handler: h.Write(), Influx: true},
		{Path: "/api/v2/write", Handler: h.WriteV2(), Influx: true},
		{Path: "/query", Handler: h.Query(), Influx: true},
		{Path: "/api/v1/import/influx", Handler: h.ImportHandler(), Influx: true, Long: true},
		{Path: "/ping", Handler: h.Ping(), Public: true},
		{Path: "/health", Handler: h.Health(), Public: true},
	}
	return nil
}

func opentsdbInputOptions(c *config.OpenTSDBInput) (o opentsdb.Options) {
	switch c.Names {
	case "restored":
		o.Names = opentsdb.NamesRestored
	case "classic":
		o.Names = opentsdb.NamesClassic
	}
	for name, value := range c.DefaultTag {
		o.DefaultTag = labels.Label{Name: name, Value: value}
	}
	return o
}

func (i *inputs) buildTelnet(in *input, limits ingest.Limits, arrivals *ingest.Metrics) error {
	t, err := opentsdb.NewTelnet(opentsdbInputOptions(in.conf.OpenTSDB), in.door, limits, arrivals, i.s.o.logger.With("input", in.conf.Name), time.Now)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", in.conf.OpenTSDB.TelnetListenAddress)
	if err != nil {
		return err
	}
	in.address = listener.Addr().String()
	if listener, err = i.withTLS(in, listener); err != nil {
		return err
	}
	in.tasks = append(in.tasks, func(ctx context.Context) error { return serveTelnet(ctx, t, listener) })
	return nil
}

// withTLS encrypts a listener of lines as the input's web_config_file has it.
func (i *inputs) withTLS(in *input, l net.Listener) (net.Listener, error) {
	if in.conf.WebConfigFile == "" {
		return l, nil
	}
	policy, err := inputPolicy(&in.conf)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	conf := policy.TLSConfig()
	if conf == nil {
		return nil, errors.Join(errors.New("web_config_file: it has no tls_server_config, and lines over TCP know no users"), l.Close())
	}
	return tls.NewListener(l, conf), nil
}

// telnetEndTimeout bounds the wait for connections that are told to end.
const telnetEndTimeout = 10 * time.Second

func serveTelnet(ctx context.Context, t *opentsdb.Telnet, l net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- t.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.Background(), telnetEndTimeout)
	defer cancel()
	err := t.Shutdown(bounded)
	<-ended
	return err
}

func otlpInputOptions(c *config.OTLPInput, all *config.Config) otlp.Options {
	o := otlp.Options{
		TranslationStrategy: c.TranslationStrategy, PromoteResourceAttributes: c.PromoteResourceAttributes,
		PromoteAllResourceAttributes: c.PromoteAllResourceAttributes, IgnoreResourceAttributes: c.IgnoreResourceAttributes,
		KeepIdentifyingResourceAttributes: c.KeepIdentifyingResourceAttributes, DisableTargetInfo: c.DisableTargetInfo,
		ConvertHistogramsToNHCB: c.ConvertHistogramsToNHCB, PromoteScopeMetadata: c.PromoteScopeMetadata, TypeAndUnitLabels: c.TypeAndUnitLabels,
		NoLabelNameUnderscoreSanitization: !unless(c.LabelNameUnderscoreSanitization), SqueezeUnderscores: !unless(c.LabelNamePreserveMultipleUnderscores),
		DeltaStateBytesMax: int64(c.MaxDeltaSize), LookbackDelta: time.Duration(all.Query.LookbackDelta), FutureMax: time.Duration(all.Ingest.MaxFuture),
	}
	switch c.Delta {
	case "refuse":
		o.Delta = otlp.DeltaRefuse
	case "keep":
		o.Delta = otlp.DeltaKeep
	}
	return o
}

// buildNATS makes a consumer. Its dead letters lie beside those of outputs, under a name that no output has.
func (i *inputs) buildNATS(in *input, limits ingest.Limits, arrivals *ingest.Metrics) error {
	c, log := in.conf.NATS, i.s.o.logger.With("input", in.conf.Name)
	precision, err := influxdb.ParsePrecision(c.Precision)
	if err != nil {
		return err
	}
	var names influxdb.Options
	if c.Influx != nil {
		names = influxNames(c.Influx)
	}
	var rw remotewrite.Options
	if c.RemoteWrite != nil {
		rw = remotewrite.Options{TenantLabel: c.RemoteWrite.TenantLabel, OTelHistograms: c.RemoteWrite.OTelHistograms}
	}
	writes := remotewrite.New(in.door, limits, arrivals, log, time.Now, rw)
	o := nats.Options{
		Name: in.conf.Name, Connection: natsConnection(in.conf.Name, &c.NATSConnection), Core: c.Core, Queue: c.QueueGroup,
		Durable: c.Durable, Subjects: c.Subjects, AckWait: time.Duration(c.AckWait), MaxAckPending: c.MaxAckPending,
		Payload: nats.Payload(c.Payload), Workers: c.Workers, InFlightBytes: int64(c.MaxInFlight),
		Receivers: map[nats.Payload]ingest.Receiver{
			nats.PayloadPrometheus:  writes.Receiver(false),
			nats.PayloadPrometheus2: writes.Receiver(true),
			nats.PayloadInflux:      influxdb.New(in.door, limits, arrivals, log, time.Now, names).Receiver(precision),
			nats.PayloadJSON:        nats.NewJSON(in.door, limits, arrivals, log, time.Now),
		},
		DeadLetters: nats.DeadLetters{Directory: filepath.Join(i.s.dataDir, deadLettersDir, "inputs"), Subject: c.DeadLetterSubject},
	}
	if t := c.Stream; t != nil {
		o.Stream = nats.Stream{
			Name: t.Name, Create: t.Create, Subjects: t.Subjects, Memory: t.Memory, Replicas: t.Replicas,
			Duplicates: time.Duration(t.Duplicates), MaxAge: time.Duration(t.MaxAge), MaxBytes: int64(t.MaxSize),
		}
	}
	consumer, err := nats.New(o, i.nats, log, time.Now)
	if err != nil {
		return err
	}
	in.tasks = append(in.tasks, consumer.Run)
	in.status = func() any { return consumer.Status() }
	return nil
}

// buildScrape makes a scraper, whose targets can change while it runs.
func (i *inputs) buildScrape(in *input, limits ingest.Limits, arrivals *ingest.Metrics) error {
	c := in.conf.Scrape
	to := ingest.NewAppendable(in.door, limits, arrivals, "scrape")
	to.SkipRepeated()
	s, err := scrape.New(scrape.Options{
		Name: in.conf.Name, Dir: c.Dir, Appendable: to, Tolerant: c.Tolerant, StartTimestamps: c.StartTimestamps, TypeAndUnitLabels: c.TypeAndUnitLabels,
		Registerer: &in.lease, Logger: i.s.o.logger,
	})
	if err != nil {
		return err
	}
	if err := s.Apply(c.ScrapeConfigs.Text); err != nil {
		return errors.Join(err, s.Close())
	}
	in.scraper = s
	in.tasks = append(in.tasks, s.Run)
	return nil
}

// retarget gives a scraper that runs other targets, if that is all that conf changes.
func (in *input) retarget(conf config.Input) (done bool, err error) {
	if in.scraper == nil || conf.Scrape == nil || in.failure.Load() != nil {
		return false, nil
	}
	without := func(c config.Input) (string, error) {
		s := *c.Scrape
		s.ScrapeConfigs.Text = nil
		c.Scrape = &s
		text, err := yaml.Marshal(c)
		return string(text), err
	}
	now, err := without(in.conf)
	if err != nil {
		return false, err
	}
	if next, err := without(conf); err != nil || now != next {
		return false, err
	}
	if err := in.scraper.Apply(conf.Scrape.ScrapeConfigs.Text); err != nil {
		return false, err
	}
	in.conf = conf
	return true, nil
}
