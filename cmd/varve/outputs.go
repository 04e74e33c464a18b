package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"varve/api"
	"varve/archive"
	"varve/config"
	"varve/forward"
	"varve/forward/ccms"
	"varve/forward/influxdb"
	"varve/forward/lineprotocol"
	forwardnats "varve/forward/nats"
	"varve/forward/opentsdb"
	"varve/forward/remotewrite"
	"varve/natsconn"
	"varve/query"
)

// deadLettersDir is where in the data directory the files of what targets refused are.
const deadLettersDir = "deadletter"

// forwarding is the forwarder as the API wants it.
type forwarding struct {
	archive   *archive.Archive
	forwarder *forward.Forwarder
	end       context.CancelFunc
	done      chan struct{}
}

func (s *server) newForwarding(a *archive.Archive, engine *query.Engine) *forwarding {
	return &forwarding{
		archive: a,
		forwarder: forward.New(forward.Options{
			Open:      func(name string, start archive.Start) (forward.Source, error) { return a.OpenCursor(name, start) },
			Remove:    a.RemoveCursor,
			Evaluator: evaluator{engine, archiveStorage{a}},
			Times:     savedTimes{a}, DeadLetters: filepath.Join(s.dataDir, deadLettersDir),
			Registerer: s.registry, Logger: s.o.logger.With("component", "forward"),
		}),
		done: make(chan struct{}),
	}
}

// begin applies the outputs and runs them until stop.
func (f *forwarding) begin(s *server) error {
	ctx, end := context.WithCancel(context.Background())
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	f.end = end
	go func() {
		defer close(f.done)
		if err := f.forwarder.Run(ctx); err != nil {
			s.o.logger.Error("The forwarder ended.", "err", err)
		}
	}()
	outputs, err := forwardOutputs(s.current.Load().Outputs)
	if err != nil {
		return err
	}
	if err := f.removeOthers(s, outputs); err != nil {
		return err
	}
	return f.forwarder.Apply(outputs)
}

// removeOthers removes the cursors of outputs that were configured when the server last ran, and need none now.
func (f *forwarding) removeOthers(s *server, outputs []forward.Output) error {
	cursors, err := f.archive.Cursors()
	if err != nil {
		return err
	}
	for _, c := range cursors {
		if slices.ContainsFunc(outputs, func(o forward.Output) bool { return o.Name == c.Name && !o.QueriesOnly }) {
			continue
		}
		s.o.logger.Warn("An output is configured no more. Its place is forgotten.", "output", c.Name, "samples_behind", c.Lag.Samples)
		if err := f.archive.RemoveCursor(c.Name); err != nil {
			return err
		}
	}
	return f.removeOtherTimes(outputs)
}

// removeOtherTimes removes what is kept of queries that no output has any more.
func (f *forwarding) removeOtherTimes(outputs []forward.Output) error {
	names, err := f.archive.SavedTimes()
	if err != nil {
		return err
	}
	for i := range outputs {
		for _, q := range outputs[i].Queries {
			names = slices.DeleteFunc(names, func(name string) bool { return name == timeName(outputs[i].Name, q.Name) })
		}
	}
	for _, name := range names {
		if err := f.archive.SaveTime(name, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// timeName is the name under which a query's time is kept. Names of outputs have no slash.
func timeName(output, query string) string { return output + "/" + query }

// reload applies changed outputs, once there are any.
func (f *forwarding) reload(outputs []config.Output) error {
	if f == nil || f.end == nil {
		return nil
	}
	return f.apply(outputs)
}

func (f *forwarding) apply(outputs []config.Output) error {
	wanted, err := forwardOutputs(outputs)
	if err != nil {
		return err
	}
	return f.forwarder.Apply(wanted)
}

// stop ends all outputs, and waits for what they send.
func (f *forwarding) stop() {
	if f.end == nil {
		return
	}
	f.end()
	<-f.done
}

// OutputsStatus implements api.Outputs.
func (f *forwarding) OutputsStatus() (any, error) { return f.forwarder.Status(), nil }

// PauseOutput implements api.Outputs.
func (f *forwarding) PauseOutput(name string) error { return outputError(f.forwarder.Pause(name)) }

// ResumeOutput implements api.Outputs.
func (f *forwarding) ResumeOutput(name string) error { return outputError(f.forwarder.Resume(name)) }

// RewindOutput implements api.Outputs.
func (f *forwarding) RewindOutput(name string, from time.Time, all bool) error {
	return outputError(f.forwarder.Rewind(name, archive.Start{All: all, From: from}))
}

func outputError(err error) error {
	if errors.Is(err, forward.ErrUnknownOutput) {
		return fmt.Errorf("%w: %w", api.ErrNoOutput, err)
	}
	return err
}

// savedTimes keeps how far queries of outputs have come in the archive.
type savedTimes struct{ *archive.Archive }

// SavedTime implements forward.Times.
func (t savedTimes) SavedTime(output, query string) (time.Time, bool, error) {
	return t.Archive.SavedTime(timeName(output, query))
}

// SaveTime implements forward.Times.
func (t savedTimes) SaveTime(output, query string, at time.Time) error {
	return t.Archive.SaveTime(timeName(output, query), at)
}

// evaluator asks the engine, which bounds queries of outputs as all others.
type evaluator struct {
	engine  *query.Engine
	storage archiveStorage
}

// Query implements forward.Evaluator.
func (e evaluator) Query(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	q, err := e.engine.NewInstantQuery(ctx, e.storage, nil, expr, at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return slices.Clone(v), nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	}
	return nil, fmt.Errorf("the query gives a %s: an output needs a vector or a scalar", res.Value.Type())
}

// forwardOutputs turns the configuration of outputs into theirs.
func forwardOutputs(outputs []config.Output) ([]forward.Output, error) {
	var out []forward.Output
	for i := range outputs {
		o, err := forwardOutput(&outputs[i])
		if err != nil {
			return nil, fmt.Errorf("outputs: %s: %w", outputs[i].Name, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func forwardOutput(c *config.Output) (forward.Output, error) {
	o := forward.Output{
		Name: c.Name, Kind: c.Kind(), Fingerprint: c.Fingerprint, Relabel: c.RelabelConfigs, ExternalLabels: labels.FromMap(c.ExternalLabels),
		BatchSamples: c.BatchSamples, BatchDelay: time.Duration(c.BatchDelay), Shards: c.Shards, RateLimit: c.RateLimit, SendTimeout: time.Duration(c.Timeout),
		BackoffMin: time.Duration(c.MinBackoff), BackoffMax: time.Duration(c.MaxBackoff), InFlightBytes: int64(c.MaxInFlight),
		BacklogBytes: uint64(c.BacklogSize), BacklogAge: time.Duration(c.BacklogAge), QueriesOnly: c.QueriesOnly,
	}
	if c.BacklogPolicy == config.DropOldest {
		o.Policy = forward.DropOldest
	}
	var err error
	if o.Start.From, o.Start.All, err = c.StartTime(); err != nil {
		return o, err
	}
	if o.Include, o.Exclude, err = c.Filters(); err != nil {
		return o, err
	}
	for _, q := range c.Queries {
		o.Queries = append(o.Queries, forward.Query{
			Name: q.Name, Expr: q.Query, Metric: q.Metric, Labels: labels.FromMap(q.Labels), Interval: time.Duration(q.Interval), Delay: time.Duration(q.Delay),
		})
	}
	if c.CCMetricStore != nil {
		addMetricQueries(&o, c.CCMetricStore)
	}
	if n := c.NATS; n != nil && !n.Core {
		// JetStream acknowledges before it syncs: what it may have lost when it was away is sent again.
		o.KeepBehind = max(0, time.Duration(cmp.Or(n.RewindWindow, config.Duration(forwardnats.DefaultRewindWindow))))
	}
	if o.NewSender, err = newSender(c); err != nil {
		return o, err
	}
	// What is wrong with the options themselves is said at once, not when the output begins.
	probe, err := o.NewSender()
	if err != nil {
		return o, err
	}
	return o, probe.Close()
}

// newSender returns what makes the sender of the output's kind.
func newSender(c *config.Output) (func() (forward.Sender, error), error) {
	switch {
	case c.RemoteWrite != nil:
		o := remoteWriteOptions(c)
		return func() (forward.Sender, error) { return remotewrite.New(o) }, nil
	case c.InfluxDB != nil:
		o, err := influxOptions(c)
		return func() (forward.Sender, error) { return influxdb.New(o) }, err
	case c.OpenTSDB != nil:
		o := opentsdbOptions(c)
		return func() (forward.Sender, error) { return opentsdb.New(o) }, nil
	case c.NATS != nil:
		o, err := natsOptions(c)
		return func() (forward.Sender, error) { return forwardnats.New(o) }, err
	case c.CCMetricStore != nil:
		o, err := ccmsOptions(c)
		return func() (forward.Sender, error) { return newCCMS(o, c.CCMetricStore) }, err
	}
	return nil, errors.New("it writes to nothing")
}

func remoteWriteOptions(c *config.Output) remotewrite.Options {
	r := c.RemoteWrite
	return remotewrite.Options{
		Name: c.Name, URL: r.URL.String(), Message: r.ProtobufMessage, HTTP: r.HTTP, Timeout: time.Duration(c.Timeout), Headers: r.Headers,
		UserAgent: "varve/" + version.Version, Metadata: unless(r.SendMetadata), Exemplars: unless(r.SendExemplars), Histograms: unless(r.SendNativeHistograms),
	}
}

// unless is true unless the setting says otherwise.
func unless(set *bool) bool { return set == nil || *set }

func influxOptions(c *config.Output) (influxdb.Options, error) {
	i := c.InfluxDB
	o := influxdb.Options{
		Name: c.Name, URL: i.URL.String(), HTTP: i.HTTP, Timeout: time.Duration(c.Timeout), Database: i.Database, RetentionPolicy: i.RetentionPolicy,
		Consistency: i.Consistency, User: i.User, Password: i.Password, Org: i.Org, Bucket: i.Bucket, Token: i.Token, TokenFile: i.TokenFile,
		Precision: lineprotocol.Milliseconds, Gzip: unless(i.Gzip), DatagramBytesMax: int(i.MaxDatagram),
	}
	switch i.Version {
	case "2":
		o.Protocol = influxdb.V2
	case "udp":
		o.Protocol, o.Precision = influxdb.UDP, lineprotocol.Nanoseconds
	}
	if i.Routed() {
		o.Route = &lineprotocol.Route{MeasurementLabel: i.MeasurementLabel, DefaultMeasurement: i.DefaultMeasurement, DropLabels: i.DropLabels}
	}
	var err error
	if i.Precision != "" {
		if o.Precision, err = lineprotocol.ParsePrecision(i.Precision); err != nil {
			return o, err
		}
	}
	o.Histograms, err = lineprotocol.ParseHistograms(i.Histograms)
	return o, err
}

func opentsdbOptions(c *config.Output) opentsdb.Options {
	t := c.OpenTSDB
	o := opentsdb.Options{
		Name: c.Name, URL: t.URL.String(), HTTP: t.HTTP, Timeout: time.Duration(c.Timeout), Sync: t.Sync, Milliseconds: t.Milliseconds, Gzip: t.Gzip,
		TagsMax: t.MaxTags, KeepLabels: t.KeepLabels,
	}
	if t.URL.Scheme == "telnet" {
		o.Protocol, o.URL = opentsdb.Telnet, t.URL.Host
	}
	for name, value := range t.DefaultTag {
		o.DefaultTag = opentsdb.Tag{Name: name, Value: value}
	}
	return o
}

func natsOptions(c *config.Output) (forwardnats.Options, error) {
	n := c.NATS
	o := forwardnats.Options{Options: natsConnection(c.Name, &n.NATSConnection)}
	o.Subject, o.Payload, o.Core = n.Subject, forwardnats.Payload(n.Payload), n.Core
	o.RewindWindow, o.MaxPayloadBytes = time.Duration(n.RewindWindow), int(n.MaxPayload)
	o.Metadata, o.Exemplars, o.Histograms = unless(n.SendMetadata), unless(n.SendExemplars), unless(n.SendNativeHistograms)
	if n.Payload == "" {
		o.Payload = forwardnats.PayloadPrometheus
	}
	if t := n.Stream; t != nil {
		o.Stream = forwardnats.Stream{
			Name: t.Name, Create: t.Create, Subjects: t.Subjects, Memory: t.Memory, Replicas: t.Replicas,
			Duplicates: time.Duration(t.Duplicates), MaxAge: time.Duration(t.MaxAge), MaxBytes: int64(t.MaxSize),
		}
	}
	var err error
	if n.Precision != "" {
		if o.Precision, err = lineprotocol.ParsePrecision(n.Precision); err != nil {
			return o, err
		}
	}
	o.InfluxHistograms, err = lineprotocol.ParseHistograms(n.Histograms)
	return o, err
}

func natsConnection(name string, n *config.NATSConnection) natsconn.Options {
	return natsconn.Options{
		Name: name, URLs: n.URLs, User: n.User, Password: string(n.Password), PasswordFile: n.PasswordFile, Token: string(n.Token), TokenFile: n.TokenFile,
		CredentialsFile: n.CredentialsFile, NKeyFile: n.NKeyFile, TLS: n.TLS,
	}
}

func ccmsOptions(c *config.Output) (ccms.Options, error) {
	m := c.CCMetricStore
	o := ccms.Options{
		Name: c.Name, HTTP: m.HTTP, Timeout: time.Duration(c.Timeout), Cluster: m.Cluster, HostnameLabel: m.HostnameLabel, HostnameRegex: m.HostnameRegex,
		Token: m.Token, TokenFile: m.TokenFile, Seed: m.Seed, SeedFile: m.SeedFile, TokenLife: time.Duration(m.TokenLife),
	}
	if m.URL != nil {
		o.URL = m.URL.String()
	}
	for i := range m.Metrics {
		row := &m.Metrics[i]
		matchers, err := row.Matchers()
		if err != nil {
			return o, err
		}
		o.Metrics = append(o.Metrics, ccms.Metric{
			Name: row.Name, Selector: matchers, Type: row.Type, IDLabel: row.IDLabel, IDRegex: row.IDRegex,
			SubType: row.SubType, SubIDLabel: row.SubIDLabel, SubIDRegex: row.SubIDRegex, Scale: row.Scale, Frequency: time.Duration(row.Frequency),
		})
	}
	if m.StoreConfig == "" {
		return o, nil
	}
	// The store answers 200 to metrics that it doesn't know, and drops them.
	store, err := os.ReadFile(m.StoreConfig)
	if err != nil {
		return o, fmt.Errorf("store_config: %w", err)
	}
	return o, ccms.CheckMetrics(store, o.Metrics)
}

// ccmsSender closes its publisher too.
type ccmsSender struct {
	*ccms.Sender
	publisher *forwardnats.Publisher
}

// Close implements forward.Sender.
func (s ccmsSender) Close() error { return errors.Join(s.Sender.Close(), s.publisher.Close()) }

func newCCMS(o ccms.Options, c *config.CCMetricStoreOutput) (forward.Sender, error) {
	if c.NATS == nil {
		return ccms.New(o)
	}
	p, err := forwardnats.NewPublisher(forwardnats.Options{Options: natsConnection(o.Name, c.NATS)}, c.Subject)
	if err != nil {
		return nil, err
	}
	o.Publish = p.Publish
	s, err := ccms.New(o)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return ccmsSender{s, p}, nil
}

// addMetricQueries makes the rows of the table that have a query queries of the output. If no row takes series as they come, nothing else
// is sent.
func addMetricQueries(o *forward.Output, c *config.CCMetricStoreOutput) {
	stream := false
	for i := range c.Metrics {
		m := &c.Metrics[i]
		if m.Query == "" {
			stream = true
			continue
		}
		o.Queries = append(o.Queries, forward.Query{
			Name: m.Name, Expr: m.Query, Metric: m.Name, Interval: time.Duration(m.Frequency), Delay: time.Duration(m.Delay),
		})
	}
	o.QueriesOnly = o.QueriesOnly || !stream
}

func addOutputs(app *kingpin.Application, stdout io.Writer) {
	cmd := app.Command("outputs", "Tell how far the outputs have come, from a data directory while no server runs on it.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	cmd.Action(func(*kingpin.ParseContext) error {
		if err := archive.Exists(*dir); err != nil {
			return err
		}
		a, err := archive.Open(*dir, archive.Options{Manual: true})
		if err != nil {
			return err
		}
		<-a.Started()
		cursors, err := a.Cursors()
		if err == nil {
			err = printCursors(stdout, cursors)
		}
		return closeAfter(a, err)
	})
}

func printCursors(out io.Writer, cursors []archive.CursorStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OUTPUT\tSENT\tDROPPED\tREFUSED\tFILTERED\tBEHIND SINCE\tSAMPLES\tBYTES\tBY TIME")
	for i := range cursors {
		c := &cursors[i]
		since := "-"
		if !c.Lag.Since.IsZero() {
			since = c.Lag.Since.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%q\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t%s\n", c.Name, c.Totals.Sent, c.Totals.Dropped, c.Totals.Refused, c.Totals.Filtered,
			since, c.Lag.Samples, c.Lag.Bytes, byTime(&c.Lag))
	}
	return w.Flush()
}

// byTime says what a cursor reads from the archive instead of the journal.
func byTime(l *archive.Lag) string {
	switch {
	case l.Whole:
		return "all from " + l.WholeFrom.UTC().Format(time.RFC3339)
	case l.GapDays > 0:
		return fmt.Sprintf("parts of %d days", l.GapDays)
	}
	return "-"
}
