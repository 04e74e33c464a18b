package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/points"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	peersDefault = "varve,victoriametrics,prometheus"
	// inputPeersDefault is who takes part in inputs if --peers is not set, besides the
	// Prometheus that has been built.
	inputPeersDefault = "varve,victoriametrics,influxdb"
)

const (
	// inputBodyBytes bounds the bodies of one point that are kept in memory: the wordy
	// formats get fewer rounds by it.
	inputBodyBytes = 768 << 20
	// otherConnections are those of all parts but influx.
	otherConnections = 4
	// otherRows gives requests of 1000 samples.
	otherRows = 100
	// countLimit is how long a server may take to show all that it acknowledged. VictoriaMetrics
	// shows samples after a second or so.
	countLimit = 2 * time.Minute
)

// inputPart is a way in and who has it.
type inputPart struct {
	name    string
	formats []points.Format
	path    string
	kinds   []peer.Kind
}

var inputParts = []inputPart{
	{"influx", []points.Format{points.Influx}, "/write?db=" + peer.InfluxDatabase, []peer.Kind{peer.Varve, peer.VictoriaMetrics, peer.InfluxDB}},
	{"otlp", []points.Format{points.OTLP}, "/api/v1/otlp/v1/metrics", []peer.Kind{peer.Varve, peer.Prometheus}},
	{"nats", []points.Format{points.RemoteWrite, points.Influx}, "", []peer.Kind{peer.Varve}},
	{"opentsdb", []points.Format{points.OpenTSDB}, "/api/put", []peer.Kind{peer.Varve, peer.VictoriaMetrics}},
	{"text", []points.Format{points.Text}, "/api/v1/import/prometheus", []peer.Kind{peer.Varve, peer.VictoriaMetrics}},
}

// inputPartNames are what --inputs-parts chooses from.
func inputPartNames() []string {
	var names []string
	for _, part := range inputParts {
		names = append(names, part.name)
	}
	return names
}

// chosenParts are the parts of --inputs-parts.
func (s *settings) chosenParts() ([]inputPart, error) {
	names := strings.Split(s.inputsParts, ",")
	for _, name := range names {
		if !slices.Contains(inputPartNames(), name) {
			return nil, fmt.Errorf("--inputs-parts: %q is none of %s", name, strings.Join(inputPartNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(inputParts), func(p inputPart) bool { return !slices.Contains(names, p.name) }), nil
}

// inputSpecs are the peers that can do something of the chosen parts: those given, and a
// Prometheus 3 for OTLP, the one of --reference or the one that internal/gate/peers/build.sh
// has built.
func (b *bench) inputSpecs(ctx context.Context, specs []peer.Spec) ([]peer.Spec, error) {
	parts, err := b.settings.chosenParts()
	if err != nil {
		return nil, err
	}
	specs = slices.Clone(specs)
	if binary := cmp.Or(b.settings.reference, builtPrometheus()); binary != "" && slices.ContainsFunc(specs, func(s peer.Spec) bool { return s.Kind != peer.Varve }) {
		specs = append(specs, peer.Spec{Name: "prometheus3", Kind: peer.Prometheus, Binary: binary})
	}
	specs = slices.DeleteFunc(specs, func(spec peer.Spec) bool {
		return !slices.ContainsFunc(parts, func(p inputPart) bool { return slices.Contains(p.kinds, spec.Kind) })
	})
	for i := range specs {
		if specs[i].Kind == peer.Prometheus {
			specs[i].More = []string{"--web.enable-otlp-receiver"}
		}
	}
	return slices.DeleteFunc(specs, func(spec peer.Spec) bool {
		version, _ := spec.Version(ctx)
		lacks := spec.Kind == peer.Prometheus && strings.HasPrefix(version, "2.")
		if lacks {
			b.say("%s is Prometheus %s and left out: the flags for OTLP are those of 3", spec.Name, version)
		}
		return lacks
	}), nil
}

// builtPrometheus is the program that internal/gate/peers/build.sh leaves, the newest, empty
// if there is none.
func builtPrometheus() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir := cmp.Or(os.Getenv("PEERS_DIR"), filepath.Join(cache, "varve-peers"))
	// The pattern is well-formed.
	found, _ := filepath.Glob(filepath.Join(dir, "prometheus-3.*"))
	slices.Sort(found)
	for _, path := range slices.Backward(found) {
		if program, err := exec.LookPath(path); err == nil {
			return program
		}
	}
	return ""
}

// inputs measures every chosen part on every server that has it, in turns.
func inputs(ctx context.Context, b *bench) error {
	parts, err := b.settings.chosenParts()
	if err != nil {
		return err
	}
	for _, part := range parts {
		for _, shape := range b.shapesOf(part) {
			if err := b.inputShape(ctx, part, shape); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return nil
}

// shapesOf are the shapes of rows that a part is measured with.
func (b *bench) shapesOf(part inputPart) []points.Shape {
	if part.name == "influx" {
		return []points.Shape{points.DevOps, points.Short}
	}
	return []points.Shape{points.DevOps}
}

// inputShape measures a part with rows of a shape, at every point.
func (b *bench) inputShape(ctx context.Context, part inputPart, shape points.Shape) error {
	s := b.settings
	config := points.Config{Seed: s.seed, Shape: shape, Series: s.inputsSeries, StepMillis: stepMillis}
	most := 1 + int((s.inputsSamples+int64(s.inputsSeries)-1)/int64(s.inputsSeries))
	start, err := b.startOf(most)
	if err != nil {
		return err
	}
	config.StartMillis = start.UnixMilli()
	r, err := points.New(config)
	if err != nil {
		return err
	}
	b.describePoints(r)
	if part.name == "nats" {
		return b.inputQueue(ctx, part, r, most)
	}
	rowsList, connectionsList := s.inputsRows, s.inputsConnections
	if part.name != "influx" {
		rowsList, connectionsList = []int{otherRows}, []int{otherConnections}
	}
	for _, compression := range []points.Compression{points.Plain, points.Gzip} {
		for _, rows := range rowsList {
			for _, connections := range connectionsList {
				template := result.Input{
					Part: part.name, Shape: string(shape), Format: string(part.formats[0]), Gzip: compression == points.Gzip,
					Connections: connections, Rows: rows, SamplesPerRow: r.Fields(),
				}
				bodies, err := b.encodePoints(r, part.formats[0], compression, rows, connections, most)
				if err != nil {
					return err
				}
				if err := b.inputTurns(ctx, part, template, bodies); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// startOf is when data of so many rounds begin, so that they end a minute ago.
func (b *bench) startOf(rounds int) (time.Time, error) {
	if b.settings.start == "" {
		return time.Now().Add(-time.Minute - time.Duration(rounds)*stepMillis*time.Millisecond).Truncate(time.Minute), nil
	}
	start, err := time.Parse(time.RFC3339, b.settings.start)
	if err != nil {
		return start, fmt.Errorf("--start: %w", err)
	}
	return start, nil
}

// describePoints notes the data in all lines.
func (b *bench) describePoints(r *points.Rows) {
	for i := range b.entries {
		b.entries[i].Dataset = result.Dataset{
			Seed: r.Config().Seed, Series: r.Series(), StepMillis: r.Config().StepMillis, StartMillis: r.Config().StartMillis,
			LabelsMean: r.LabelsMean(), LabelBytesMean: r.LabelBytesMean(),
		}
	}
}

// pointBodies are the bodies of one point, the first round apart.
type pointBodies struct {
	rows        *points.Rows
	format      points.Format
	first, rest [][]wire.Frame
	rounds      int
}

// encodePoints encodes as many rounds as there shall be, or as fit.
func (b *bench) encodePoints(r *points.Rows, format points.Format, compression points.Compression, rows, connections, most int) (pointBodies, error) {
	b.show("encoding %d rounds of %d series", most, r.Series())
	bodies := pointBodies{rows: r, format: format}
	encoder := r.NewEncoder(format, rows, compression)
	var err error
	if bodies.first, err = encoder.Rounds(connections, 0, 1); err != nil {
		return bodies, err
	}
	perRound := 0
	for _, lane := range bodies.first {
		for _, frame := range lane {
			perRound += len(frame.Body)
		}
	}
	bodies.rounds = min(most, 2+inputBodyBytes/perRound)
	bodies.rest, err = encoder.Rounds(connections, 1, bodies.rounds-1)
	return bodies, err
}

// inputTurns measures all servers at one point, in turns.
func (b *bench) inputTurns(ctx context.Context, part inputPart, point result.Input, bodies pointBodies) error {
	for repetition := range b.settings.repetitions {
		for i, spec := range b.specs {
			if !slices.Contains(part.kinds, spec.Kind) {
				continue
			}
			point.Repetition = repetition + 1
			measured, err := b.inputOnce(ctx, spec, part, point, bodies)
			if err != nil {
				return err
			}
			b.entries[i].Inputs = append(b.entries[i].Inputs, measured)
		}
	}
	return nil
}

// inputTarget is where a part's requests go.
func inputTarget(server *peer.Server, part inputPart, point result.Input) load.Target {
	target := load.Target{Address: server.Address, Path: part.path, ContentType: points.Format(point.Format).ContentType()}
	if point.Gzip {
		target.Encoding = "gzip"
	}
	if part.name == "opentsdb" && server.Spec.Kind == peer.VictoriaMetrics {
		target.Address = server.SideAddress
	}
	return target
}

// inputOnce measures one server, from an empty directory, at one point.
func (b *bench) inputOnce(ctx context.Context, spec peer.Spec, part inputPart, point result.Input, bodies pointBodies) (_ result.Input, err error) {
	if err := b.noteSyncs(&point); err != nil {
		return point, err
	}
	spec.OpenTSDB = part.name == "opentsdb"
	server, err := b.start(ctx, spec, "inputs-"+spec.Name)
	if err != nil {
		return point, err
	}
	defer func() { err = errors.Join(err, b.discard(server)) }()
	if spec.Kind == peer.InfluxDB {
		if err := server.CreateDatabase(ctx); err != nil {
			return point, err
		}
	}
	target := inputTarget(server, part, point)
	idle, _ := server.Cost()
	report, err := b.pushTo(ctx, server, target, bodies.first, load.Options{})
	if err != nil {
		return point, err
	}
	known, _ := server.Cost()
	point.Sent = report.Acknowledged
	point.NewSeriesPerSecond = float64(report.Acknowledged) / report.Elapsed.Seconds()
	point.NewSeriesCPU = (known.CPUSeconds - idle.CPUSeconds) / float64(report.Acknowledged) * 1e6
	server.Settle(ctx, settleLimit)

	before, countersBefore := b.reading(ctx, server)
	own := ownCPU()
	report, err = b.pushTo(ctx, server, target, bodies.rest, load.Options{For: b.settings.inputsFor})
	own = ownCPU() - own
	if err != nil {
		return point, err
	}
	after, countersAfter := b.reading(ctx, server)
	server.Settle(ctx, settleLimit)
	settled, _ := b.reading(ctx, server)
	point.Samples, point.Seconds = report.Acknowledged, report.Elapsed.Seconds()
	point.Sent += report.Acknowledged
	point.P50Millis, point.P99Millis = millis(load.Percentile(report.Latencies, 0.5)), millis(load.Percentile(report.Latencies, 0.99))
	point.MaxMillis = millis(load.Percentile(report.Latencies, 1))
	point.BodyBytes = float64(report.BodyBytes) / float64(report.Acknowledged)
	noteCosts(&point, spec, inputCosts{before, after, settled, countersBefore, countersAfter, own})
	if point.Found, err = b.countStored(ctx, server, bodies, point.Sent); err != nil {
		return point, err
	}
	b.sayInput(spec, point)
	return point, nil
}

// inputCosts are readings of a server before and after samples came in, and once it had
// settled, and what the load cost in this process.
type inputCosts struct {
	before, after, settled        peer.Cost
	countersBefore, countersAfter map[string]float64
	own                           float64
}

// noteCosts notes what the samples of a point cost.
func noteCosts(point *result.Input, spec peer.Spec, c inputCosts) {
	samples := float64(point.Samples)
	point.CPU, point.CPUSettled = (c.after.CPUSeconds-c.before.CPUSeconds)/samples*1e6, (c.settled.CPUSeconds-c.before.CPUSeconds)/samples*1e6
	point.GeneratorCPU = c.own / samples * 1e6
	point.RSSBytes, point.PeakBytes = c.after.RSSBytes, c.after.PeakBytes
	point.DiskBytes = float64(c.settled.WrittenBytes-c.before.WrittenBytes) / samples
	point.SamplesPerCommit = perCommit(c.countersBefore, c.countersAfter)
	if spec.Kind != peer.VictoriaMetrics {
		// VictoriaMetrics publishes the count from time to time only.
		point.Allocations = (c.countersAfter["go_memstats_mallocs_total"] - c.countersBefore["go_memstats_mallocs_total"]) / samples
	}
}

// noteSyncs notes what the disk does just then.
func (b *bench) noteSyncs(point *result.Input) error {
	syncs, err := peer.SyncTimes(b.root, syncWrites)
	if err != nil {
		return err
	}
	point.SyncP50Millis, point.SyncP99Millis = millis(load.Percentile(syncs, 0.5)), millis(load.Percentile(syncs, 0.99))
	return nil
}

// sayInput prints a point.
func (b *bench) sayInput(spec peer.Spec, point result.Input) {
	compression, doubt := "", ""
	if point.Gzip {
		compression = " gzip"
	}
	if !point.Valid() {
		doubt = fmt.Sprintf("  INVALID: has %d of %d", point.Found, point.Sent)
	}
	b.say("%s %s %s%s, %4d rows x %2d connections, %-16s %5.0f k samples/s %5.0f k rows/s  CPU %.3f s/M (settled %.3f)  p50 %.2f p99 %.2f max %.0f ms  RSS %d MiB  generator %.3f s/M%s",
		point.Part, point.Shape, point.Format, compression, point.Rows, point.Connections, spec.Name+":", point.SamplesPerSecond()/1e3,
		point.SamplesPerSecond()/1e3/float64(point.SamplesPerRow), point.CPU, point.CPUSettled, point.P50Millis, point.P99Millis, point.MaxMillis, point.RSSBytes>>20,
		point.GeneratorCPU, doubt)
}

// countStored asks until the server has so many samples, and gives what it has at last.
func (b *bench) countStored(ctx context.Context, server *peer.Server, bodies pointBodies, sent int64) (int64, error) {
	found := int64(0)
	err := poll(ctx, countLimit, func() (_ bool, err error) {
		found, err = countPoints(ctx, server, bodies)
		return found == sent, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		// Not having all of it is a result.
		return found, nil
	}
	return found, err
}

// countPoints counts the samples of all series in the time of the bodies.
func countPoints(ctx context.Context, server *peer.Server, bodies pointBodies) (int64, error) {
	if server.Spec.Kind == peer.InfluxDB {
		return server.InfluxCount(ctx, bodies.rows.Measurement())
	}
	// A range has no sample of its own beginning.
	seconds := 1 + int64(bodies.rounds)*stepMillis/1000
	end := bodies.rows.Config().StartMillis/1000 + seconds - 1
	total := 0.0
	for _, selector := range bodies.rows.Selectors(bodies.format) {
		parameters := url.Values{"query": {fmt.Sprintf("sum(count_over_time(%s[%ds]))", selector, seconds)}, "time": {fmt.Sprint(end)}}
		body, _, err := ask(ctx, server, "query", parameters, time.Minute)
		if err != nil {
			return 0, err
		}
		answer, err := parseAnswer(body)
		if err != nil {
			return 0, err
		}
		total += answer.sum()
	}
	return int64(total), nil
}
