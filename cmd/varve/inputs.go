package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	upstream "github.com/prometheus/prometheus/scrape"

	"varve/api"
	"varve/api/access"
	"varve/archive"
	"varve/config"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/nats"
	"varve/ingest/scrape"
)

// inputs are the ways in. They come and go with the configuration: one whose text did not change goes on when it is read again.
type inputs struct {
	s        *server
	archive  *archive.Archive
	arrivals *ingest.Metrics
	// limits are those of the section ingest. All inputs share their budget.
	limits ingest.Limits
	// pace is that of all inputs together, nil for any.
	pace *ingest.Pace
	udp  *influxdb.UDPMetrics
	nats *nats.Metrics
	// api is what stands in front of endpoints; set before begin.
	api *api.API

	// quit is over when the inputs are to end for good.
	quit    context.Context
	endQuit context.CancelFunc

	mu      sync.Mutex // held while inputs begin and end, which takes time
	running map[string]*input
	// stalled are those that did not end in time. No other of the name begins before they have: both would write notes.
	stalled map[string]*input
	ended   bool
	// shown is what running was when it changed last, by name: who asks doesn't wait for mu.
	shown atomic.Pointer[[]*input]
	// endpoints are those on the server's own address, by path.
	endpoints atomic.Pointer[map[string]api.Endpoint]
}

// input is one of them.
type input struct {
	name string
	// told is what of the status never changes.
	told inputStatus
	// conf is guarded by the mu of inputs: a scraper's targets change while it runs.
	conf config.Input
	door *ingest.Door
	// endpoints have the usual paths of the kind.
	endpoints []api.Endpoint
	// tasks run beside requests until their context ends. The door's is the last to end.
	tasks []func(context.Context) error
	// status is what the kind tells of itself beyond the metrics; may be nil.
	status func() any
	// scraper is nil unless the input is one.
	scraper *scrape.Scraper

	// answering is held by requests, and for good by the input's end.
	answering sync.RWMutex
	web       *http.Server // on an address of its own
	address   string
	cancel    context.CancelFunc
	running   sync.WaitGroup
	failure   atomic.Pointer[error]
	ending    atomic.Bool
	// gone is closed when it has ended and writes nothing any more.
	gone  chan struct{}
	lease lease
}

// Endpoint implements api.Inputs.
func (i *inputs) Endpoint(path string) (api.Endpoint, bool) {
	all := i.endpoints.Load()
	if all == nil {
		return api.Endpoint{}, false
	}
	e, ok := (*all)[path]
	return e, ok
}

// inputStatus is what is told of an input.
type inputStatus struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Address is its own, empty where Paths are on the server's.
	Address string   `json:"address,omitempty"`
	Paths   []string `json:"paths,omitempty"`
	State   string   `json:"state"`
	Error   string   `json:"error,omitempty"`
	Detail  any      `json:"detail,omitempty"`
	// Refusals are those since the start, by reason.
	Refusals []ingest.Refusal `json:"refusals"`
}

// InputsStatus implements api.Inputs. It waits for nobody.
func (i *inputs) InputsStatus() (any, error) {
	all := []inputStatus{}
	for _, in := range i.list() {
		st := in.told
		st.Refusals = i.arrivals.For(in.name).Refusals()
		if in.ending.Load() {
			st.State = "ending"
		}
		if in.status != nil {
			st.Detail = in.status()
		}
		if err := in.failure.Load(); err != nil {
			st.State, st.Error = "failed", (*err).Error()
		}
		all = append(all, st)
	}
	return all, nil
}

// list returns the inputs by name, those too that are being ended.
func (i *inputs) list() []*input {
	if shown := i.shown.Load(); shown != nil {
		return *shown
	}
	return nil
}

// show makes the inputs that are there those that are listed. Called with mu held.
func (i *inputs) show() {
	var all []*input
	for _, name := range slices.Sorted(maps.Keys(i.running)) {
		all = append(all, i.running[name])
	}
	i.shown.Store(&all)
}

// tell is the status of an input as it begins.
func (in *input) tell() {
	in.told = inputStatus{Name: in.name, Kind: in.conf.Kind(), Address: in.address, State: "running"}
	for _, e := range in.endpoints {
		in.told.Paths = append(in.told.Paths, in.conf.Path+e.Path)
	}
	if in.conf.Fingerprint == fingerprintLeaving {
		in.told.State = "leaving"
	}
}

// newInputs returns inputs that have not begun.
func (s *server) newInputs(a *archive.Archive) *inputs {
	i := &inputs{
		s: s, archive: a, arrivals: ingest.NewMetrics(s.registry), limits: ingestLimits(s.o.config), running: map[string]*input{}, stalled: map[string]*input{},
		udp: influxdb.NewUDPMetrics(s.registry), nats: nats.NewMetrics(s.registry),
	}
	i.quit, i.endQuit = context.WithCancel(context.Background())
	if perSecond := s.o.config.Ingest.MaxSamplesPerSecond; perSecond > 0 {
		i.pace = ingest.NewPace(perSecond, 0)
	}
	return i
}

// begin starts the inputs that are configured. An error is one of the first start, such as an address that is taken.
func (i *inputs) begin(conf *config.Config) error { return i.apply(conf) }

// fingerprintLeaving is that of inputs that are configured no more and have something to write still.
const fingerprintLeaving = "leaving"

// leaving returns the inputs that are configured no more and have notes. What thinning took and acknowledged is in them until
// it is written, which a door without rules does; what else there is is removed.
func (i *inputs) leaving(ctx context.Context, wanted map[string]config.Input) ([]config.Input, error) {
	var all []config.Input
	var gone []ingest.Note
	err := i.archive.EachNote("", func(name string, _ []byte) error {
		input, rest, _ := strings.Cut(name, "/")
		switch _, ok := wanted[input]; {
		case ok:
		case !strings.HasPrefix(rest, "thin"):
			gone = append(gone, ingest.Note{Name: name})
		case len(all) == 0 || all[len(all)-1].Name != input: // They come in the order of names.
			all = append(all, config.Input{Name: input, Fingerprint: fingerprintLeaving})
		}
		return nil
	})
	if err == nil && len(gone) > 0 {
		err = i.archive.SaveNotes(ctx, gone, false)
	}
	return all, err
}

// reload applies the inputs of another configuration, once there are any.
func (i *inputs) reload(conf *config.Config) error {
	if i == nil {
		return nil
	}
	return i.apply(conf)
}

// apply ends inputs that are not wanted so any more and begins those that are wanted and not there. It goes on after an error: one
// input must not keep the others from running.
func (i *inputs) apply(conf *config.Config) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return nil
	}
	wanted := map[string]config.Input{}
	for _, c := range conf.AllInputs() {
		wanted[c.Name] = c
	}
	var leaving []*input
	var errs []error
	for name, in := range i.running {
		c, ok := wanted[name]
		if ok && c.Fingerprint == in.conf.Fingerprint && in.failure.Load() == nil {
			continue
		}
		if ok {
			done, err := in.retarget(c)
			if err != nil {
				errs = append(errs, fmt.Errorf("input %q: %w", name, err))
			}
			if done || err != nil {
				continue
			}
		}
		leaving = append(leaving, in)
		delete(i.running, name)
	}
	// Requests to those that leave are told to come back until what is wanted is there.
	ctx, cancel := context.WithTimeout(i.quit, inputEndTimeout)
	defer cancel()
	i.endAll(ctx, leaving)
	left, err := i.leaving(ctx, wanted)
	if err != nil {
		i.s.o.logger.Warn("Notes of inputs that are configured no more could not be looked after.", "err", err)
	}
	for _, c := range left {
		wanted[c.Name] = c
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if i.running[name] != nil {
			continue
		}
		in, err := i.startAlone(wanted[name])
		if err != nil {
			err = fmt.Errorf("input %q: %w", name, err)
			i.s.o.logger.Error("An input did not begin.", "input", name, "err", err)
			errs = append(errs, err)
			in = &input{name: name, conf: wanted[name], endpoints: refusing(wanted[name])}
			in.tell()
			in.failure.Store(&err)
		}
		i.running[name] = in
	}
	i.show()
	i.route()
	return errors.Join(errs...)
}

// refusing are the endpoints of an input that did not begin. Its senders are told to come back: most drop what they have when they hear
// that nobody is there.
func refusing(conf config.Input) (all []api.Endpoint) {
	if conf.Path == "" && !conf.Usual() {
		return nil
	}
	for _, path := range writePaths[conf.Kind()] {
		all = append(all, api.Endpoint{Path: path, Influx: conf.InfluxDB != nil, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "this input did not begin", http.StatusServiceUnavailable)
		})})
	}
	return all
}

// checkPaths finds out whether another input has a path of in.
func (i *inputs) checkPaths(in *input) error {
	for _, other := range i.running {
		if in.conf.ListenAddress != "" || other.conf.ListenAddress != "" || other.cancel == nil || shareWrite(in.conf.Kind(), other.conf.Kind()) {
			continue
		}
		for _, e := range in.endpoints {
			path := in.conf.Path + e.Path
			if slices.ContainsFunc(other.endpoints, func(o api.Endpoint) bool { return other.conf.Path+o.Path == path }) {
				return fmt.Errorf("%s is a path of input %q", path, other.name)
			}
		}
	}
	return nil
}

// shareWrite tells that two kinds may have one path, see eitherWrite.
func shareWrite(a, b string) bool {
	return a == "remote_write" && b == "influxdb" || a == "influxdb" && b == "remote_write"
}

// route makes the table of endpoints on the server's own address.
func (i *inputs) route() {
	table, kinds := map[string]api.Endpoint{}, map[string]string{}
	var began, failed []*input
	for _, name := range slices.Sorted(maps.Keys(i.running)) {
		switch in := i.running[name]; {
		case in.conf.ListenAddress != "":
		case in.cancel == nil:
			failed = append(failed, in)
		default:
			began = append(began, in)
		}
	}
	// Those that did not begin refuse where nobody else answers.
	for _, in := range append(began, failed...) {
		for _, e := range in.endpoints {
			e.Path = in.conf.Path + e.Path
			kind := in.conf.Kind()
			if other, taken := table[e.Path]; taken {
				if !shareWrite(kind, kinds[e.Path]) {
					continue
				}
				e, kind = eitherWrite(e, other, kind), ""
			}
			table[e.Path], kinds[e.Path] = e, kind
		}
	}
	i.endpoints.Store(&table)
}

// eitherWrite is the endpoint for the one path, /write, that two protocols have: senders of remote write say what they send.
func eitherWrite(e, other api.Endpoint, kind string) api.Endpoint {
	remote, influx := other.Handler, e.Handler
	if kind == "remote_write" {
		remote, influx = influx, remote
	}
	return api.Endpoint{Path: e.Path, Influx: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
		if strings.EqualFold(strings.TrimSpace(media), "application/x-protobuf") {
			remote.ServeHTTP(w, r)
			return
		}
		influx.ServeHTTP(w, r)
	})}
}

// start begins an input.
func (i *inputs) start(conf config.Input) (_ *input, err error) {
	in := &input{name: conf.Name, conf: conf, gone: make(chan struct{}), lease: lease{from: i.s.registry}}
	defer func() {
		if err != nil {
			in.lease.end()
		}
	}()
	limits := i.limitsOf(&conf.Limits)
	if in.door, err = i.newDoor(&conf, limits); err != nil {
		return nil, err
	}
	if conf.Fingerprint != fingerprintLeaving {
		if err := i.build(in, limits); err != nil {
			return nil, err
		}
	}
	if err := i.checkPaths(in); err != nil {
		return nil, err
	}
	for k := range in.endpoints {
		if !in.endpoints[k].Public {
			in.endpoints[k].Handler = in.untilEnd(in.endpoints[k].Handler)
		}
	}
	var listener net.Listener
	if conf.ListenAddress != "" {
		if listener, err = i.listen(in); err != nil {
			return nil, err
		}
	}
	in.tell()
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	for _, task := range append(in.tasks, in.door.Run) {
		in.running.Go(func() {
			if err := task(ctx); err != nil && ctx.Err() == nil {
				in.fail(i.s, err)
			}
		})
	}
	if listener != nil {
		in.running.Go(func() {
			if err := in.web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				in.fail(i.s, err)
			}
		})
	}
	return in, nil
}

func (in *input) fail(s *server, err error) {
	s.o.logger.Error("An input ended by itself. It begins again when the configuration is read again.", "input", in.name, "err", err)
	in.failure.Store(&err)
}

// untilEnd answers requests until the input ends.
func (in *input) untilEnd(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !in.answering.TryRLock() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "this input is being configured", http.StatusServiceUnavailable)
			return
		}
		defer in.answering.RUnlock()
		next.ServeHTTP(w, r)
	})
}

// limitsOf are the limits of an input: those of the section ingest where it has none.
func (i *inputs) limitsOf(own *config.InputLimits) ingest.Limits {
	l := i.limits
	set := func(field *int64, own config.Size) {
		if own != 0 {
			*field = int64(own)
		}
	}
	setInt := func(field *int, own int) {
		if own != 0 {
			*field = own
		}
	}
	set(&l.CompressedBytesMax, own.MaxCompressed)
	set(&l.DecodedBytesMax, own.MaxDecoded)
	setInt(&l.SeriesMax, own.MaxSeries)
	setInt(&l.LabelsMax, own.MaxLabels)
	setInt(&l.NameBytesMax, int(own.MaxLabelName))
	setInt(&l.ValueBytesMax, int(own.MaxLabelValue))
	return l
}

// newDoor is the archive as the input may see it.
func (i *inputs) newDoor(conf *config.Input, limits ingest.Limits) (*ingest.Door, error) {
	include, exclude, err := conf.Filters()
	if err != nil {
		return nil, err
	}
	o := ingest.DoorOptions{
		Name: conf.Name, Sink: i.archive, Notes: i.archive, Limits: limits, Now: time.Now, FutureMax: time.Duration(i.s.o.config.Ingest.MaxFuture),
		Rules:     ingest.Rules{Include: include, Exclude: exclude, Relabel: conf.RelabelConfigs, External: labels.FromMap(conf.ExternalLabels)},
		SeriesMax: conf.Limits.MaxActiveSeries, SamplesPerSecondMax: conf.Limits.MaxSamplesPerSecond, Burst: conf.Limits.BurstSamples,
		Thin:       ingest.Thin{Interval: time.Duration(conf.Downsample), TTL: time.Duration(conf.TTL)},
		Pace:       i.pace,
		Registerer: i.s.registry, Logger: i.s.o.logger,
	}
	if conf.HA != nil {
		o.HA = ingest.HA{ClusterLabel: conf.HA.ClusterLabel, ReplicaLabel: conf.HA.ReplicaLabel, FailoverTimeout: time.Duration(conf.HA.FailoverTimeout)}
	}
	return ingest.NewDoor(o)
}

// listen opens the input's own address.
func (i *inputs) listen(in *input) (net.Listener, error) {
	guard := i.s.guard
	if in.conf.WebConfigFile != "" || len(in.conf.Tokens) > 0 {
		policy, err := inputPolicy(&in.conf)
		if err != nil {
			return nil, err
		}
		if guard, err = access.NewGuard(policy, nil, i.s.denied); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", in.conf.ListenAddress)
	if err != nil {
		return nil, err
	}
	in.address = listener.Addr().String()
	if !isLoopback(listener.Addr()) && !guard.Policy().Secured() {
		i.s.o.logger.Warn("EVERYBODY WHO REACHES THIS ADDRESS MAY WRITE METRICS. Set tokens or web_config_file of the input, or listen on 127.0.0.1.",
			"input", in.name, "address", in.address)
	}
	in.web = i.s.web.Beside(i.api.InputHandler(in.conf.Name, guard, in.find))
	return guard.Listener(i.s.web.Limited(listener)), nil
}

// find returns the endpoint at a path of the input's own address.
func (in *input) find(path string) (api.Endpoint, bool) {
	at := slices.IndexFunc(in.endpoints, func(e api.Endpoint) bool { return e.Path == path })
	if at < 0 {
		return api.Endpoint{}, false
	}
	return in.endpoints[at], true
}

// inputPolicy is who may write at an input's own address.
func inputPolicy(conf *config.Input) (*access.Policy, error) {
	c := &config.Config{Web: config.Web{ConfigFile: conf.WebConfigFile, Tokens: conf.Tokens}}
	return newPolicy(c)
}

// targets are what is scraped: by the inputs, and of the server itself.
type targets struct {
	self   scrape.Retriever
	inputs *inputs
}

func (t targets) all() scrape.Merged {
	merged := scrape.Merged{t.self}
	for _, in := range t.inputs.list() {
		if in.scraper != nil {
			merged = append(merged, in.scraper.Targets())
		}
	}
	return merged
}

// TargetsActive implements v1.TargetRetriever.
func (t targets) TargetsActive() map[string][]*upstream.Target { return t.all().TargetsActive() }

// TargetsDropped implements v1.TargetRetriever.
func (t targets) TargetsDropped() map[string][]*upstream.Target { return t.all().TargetsDropped() }

// TargetsDroppedCounts implements v1.TargetRetriever.
func (t targets) TargetsDroppedCounts() map[string]int { return t.all().TargetsDroppedCounts() }

// ScrapePoolConfig implements v1.TargetRetriever.
func (t targets) ScrapePoolConfig(pool string) (*promconfig.ScrapeConfig, error) {
	return t.all().ScrapePoolConfig(pool)
}
