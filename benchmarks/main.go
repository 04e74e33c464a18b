// Benchmarks measures Varve beside VictoriaMetrics and Prometheus: what they take
// in, what it costs them, how they come back from a crash and how fast they
// answer.
//
//	go run ./benchmarks ingest|memory|restart|query|fleet|exporters|churn|year|forward|pass|inputs|blocks|
//	snapshots|record|all|render [flags]
//
// Every verb starts the servers itself, on fresh directories and free ports of the
// loopback, feeds all of them the same bytes, and measures from outside: over HTTP
// and in /proc. Nothing of the product is imported. Servers take turns within each
// repetition (A B A B), so that what else the machine does hits all alike. Each run
// appends one JSON line a server to results.jsonl; render makes docs/benchmarks.md
// of the file.
//
// A run is one goroutine, but for what kills a server under load, asks it while it
// starts or encodes what is sent next. All loops are bounded in time; servers and directories are removed at
// the end, also after an interrupt.
//
// It does not judge: goals stand in the page's text, and a slow server is a result,
// not an error. It does not prove durability either; the crash gate does that.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// settings are the flags.
type settings struct {
	peers       string
	reference   string
	varve       string
	varveMore   []string
	directory   string
	results     string
	page        string
	note        string
	seed        uint64
	start       string
	repetitions int

	series      int
	connections []int
	batches     []int
	protocols   []int
	samples     int64
	seconds     time.Duration

	seriesList []int
	rounds     int
	rate       int
	load       time.Duration

	hostsLong, hostsShort   int
	roundsLong, roundsShort int
	passes                  int
	check                   bool
	size                    string

	recordings          string
	scrapes, scrapesMin int
	targets             []string
	hours               int
	repeat              bool
	settle, quiet       time.Duration
	alone               int
	pods, podSeries     int
	lifeHours           []int

	days, yearSeries, compactDays int

	forwardParts                                  []string
	forwardRates, forwardProtocols, forwardShards []int
	forwardSamples                                int64
	forwardFor, downFor, deadFor                  time.Duration
	liveRate, deadTurns                           int
	deadRates                                     []int

	passDays, passSeries, passRate int
	passFor                        time.Duration

	inputsParts                   string
	inputsSeries                  int
	inputsConnections, inputsRows []int
	inputsSamples                 int64
	inputsFor                     time.Duration

	blocksDays, blocksHours int
	blocksDirectory         string

	snapshotsDays, snapshotsTurns int
	snapshotsTargets              []string
	snapshotsRates                []int
	snapshotsSamples              int64
	snapshotsFor, snapshotsEach   time.Duration
	snapshotsUploadMiB            int
	snapshotsBucket               string
}

func main() {
	// The kernel ends the servers with the thread that started them.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var s settings
	app := kingpin.New("benchmarks", "Measures Varve beside VictoriaMetrics and Prometheus.")
	app.HelpFlag.Short('h')
	runs := s.flags(app)
	chosen := kingpin.MustParse(app.Parse(os.Args[1:]))
	s.shrink()
	if chosen == "inputs" && s.peers == peersDefault {
		s.peers = inputPeersDefault
	}
	if err := runs[chosen](ctx, &s); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// flags declares the command line and says what each verb runs.
func (s *settings) flags(app *kingpin.Application) map[string]func(context.Context, *settings) error {
	app.Flag("peers", "Servers in the order of their turns: varve, victoriametrics, prometheus, influxdb (for inputs alone, where it is in the default), NAME=KIND:PROGRAM or NAME=KIND:http://ADDRESS.").
		Envar("PEERS").Default(peersDefault).StringVar(&s.peers)
	app.Flag("reference", "query: a further Prometheus program, of the release whose engine Varve has; its answers are the measure.").
		Envar("REFERENCE").StringVar(&s.reference)
	app.Flag("varve", "The varve program; built from ./cmd/varve if empty.").Envar("VARVE_BINARY").StringVar(&s.varve)
	app.Flag("varve.argument", "A further argument for varve serve, e.g. --varve.argument=--config.file=F. Recorded as its sync mode.").StringsVar(&s.varveMore)
	app.Flag("directory", "Where to put data directories; their file system is what is measured.").Default(os.TempDir()).StringVar(&s.directory)
	app.Flag("results", "The file of results to append to.").Default("benchmarks/results.jsonl").StringVar(&s.results)
	app.Flag("page", "The page to render.").Default("docs/benchmarks.md").StringVar(&s.page)
	app.Flag("note", "A remark to keep with the results.").StringVar(&s.note)
	app.Flag("seed", "The seed of the data.").Default("1").Uint64Var(&s.seed)
	app.Flag("start", "When the data begins, RFC 3339; by default so that it ends a minute ago.").StringVar(&s.start)
	app.Flag("repetitions", "How often each measurement is repeated.").Default("2").IntVar(&s.repetitions)
	app.Flag("size", "full: what is published; short: a few minutes; quick: shows that it works, not how fast. The latter two override other flags.").
		Default("full").EnumVar(&s.size, "full", "short", "quick")

	app.Flag("series", "ingest: number of series.").Default("100000").IntVar(&s.series)
	app.Flag("connections", "ingest: numbers of connections.").Default("4", "16").IntsVar(&s.connections)
	app.Flag("batches", "ingest: samples a request.").Default("500", "2000").IntsVar(&s.batches)
	app.Flag("protocols", "ingest: versions of remote write; 2 is sent to varve only.").Default("1").IntsVar(&s.protocols)
	app.Flag("samples", "ingest: samples a point, after the first round.").Default("12000000").Int64Var(&s.samples)
	app.Flag("seconds", "ingest: end a point after this time, whatever it reached.").Default("20s").DurationVar(&s.seconds)

	app.Flag("series-list", "memory, restart: numbers of series.").Default("100000", "1000000").IntsVar(&s.seriesList)
	app.Flag("rounds", "memory: samples of each series.").Default("5").IntVar(&s.rounds)
	app.Flag("rate", "restart: samples a second before the kill.").Default("100000").IntVar(&s.rate)
	app.Flag("load", "restart: how long samples come in at that rate before the kill.").Default("30s").DurationVar(&s.load)

	app.Flag("hosts-long", "query: hosts of 1000 series with the long history.").Default("4").IntVar(&s.hostsLong)
	app.Flag("rounds-long", "query: scrapes of these, every 15 s.").Default("1440").IntVar(&s.roundsLong)
	app.Flag("hosts-short", "query: hosts with the short history.").Default("32").IntVar(&s.hostsShort)
	app.Flag("rounds-short", "query: scrapes of these, the last of the long ones.").Default("240").IntVar(&s.roundsShort)
	app.Flag("passes", "query: warm passes.").Default("5").IntVar(&s.passes)

	app.Command("ingest", "Samples a second, latency and CPU at every number of connections and samples a request.")
	app.Command("memory", "Resident memory by number of active series.")
	app.Command("restart", "Return from kill -9 under load.")
	app.Command("query", "Ten dashboard queries, cold and warm, and whether the answers are Prometheus'.")
	app.Command("fleet", "Recorded exporters as a fleet over a day: ingestion, bytes on disk once settled, values that come back changed, queries, labels, kill -9.")
	app.Command("exporters", "Bytes on disk once settled, of a fleet of each recorded exporter by itself.")
	app.Command("churn", "What the index costs: series of pods that live two hours or a day, with short and with long labels.")
	app.Command("all", "All of these, then render.").Default()
	app.Command("year", "A year of a fleet of recorded exporters in a Varve: what rollups take, and a dashboard over all of it from rollups and from raw samples.")
	app.Flag("targets", "fleet: how many targets replay each recording.").Default("node=10", "prometheus=5", "varve=5").StringsVar(&s.targets)
	app.Flag("hours", "fleet, exporters: span of the data, in whole past days.").Default("24").IntVar(&s.hours)
	app.Flag("repeat", "fleet, exporters: use increments again if the recordings are too short; else the span is shortened.").BoolVar(&s.repeat)
	app.Flag("scrapes-min", "fleet, exporters, churn: record anew if no kept recording is as long, at one scrape a second.").Default("5760").IntVar(&s.scrapesMin)
	app.Flag("settle", "fleet, exporters, churn: how long to wait for a server to settle.").Default("10m").DurationVar(&s.settle)
	app.Flag("quiet", "fleet, exporters, churn: how long a server must be idle to count as settled.").Default("10s").DurationVar(&s.quiet)
	app.Flag("alone", "exporters: how many targets replay the one recording.").Default("10").IntVar(&s.alone)
	app.Flag("pods", "churn: pods at a time.").Default("120").IntVar(&s.pods)
	app.Flag("pod-series", "churn: series of a pod.").Default("40").IntVar(&s.podSeries)
	app.Flag("lives", "churn: hours that a pod lives.").Default("24", "2").IntsVar(&s.lifeHours)
	app.Flag("days", "year: span of the data, in whole past days.").Default("365").IntVar(&s.days)
	app.Flag("year-series", "year: number of series, about.").Default("500").IntVar(&s.yearSeries)
	app.Flag("compact-days", "year: after how many days to seal and roll up.").Default("10").IntVar(&s.compactDays)
	app.Command("forward", "Outputs of a Varve: what they send and cost, how they catch up, and ingestion beside dead ones.")
	app.Flag("forward-parts", "forward: what to measure.").Default(forwardParts...).StringsVar(&s.forwardParts)
	app.Flag("forward-rates", "forward: samples a second that are offered beside an output that is alive, 0 for as many as are taken.").
		Default("300000", "0").IntsVar(&s.forwardRates)
	app.Flag("forward-protocols", "forward: versions of remote write of the output.").Default("1", "2").IntsVar(&s.forwardProtocols)
	app.Flag("forward-shards", "forward: shards of the output.").Default("1", "4").IntsVar(&s.forwardShards)
	app.Flag("forward-samples", "forward: samples that there are at most for one point, after the first round.").Default("24000000").Int64Var(&s.forwardSamples)
	app.Flag("forward-seconds", "forward: how long samples come in beside an output that is alive.").Default("60s").DurationVar(&s.forwardFor)
	app.Flag("live-rate", "forward: samples a second while a peer is away and comes back.").Default("100000").IntVar(&s.liveRate)
	app.Flag("down-seconds", "forward: how long the peer is away.").Default("120s").DurationVar(&s.downFor)
	app.Flag("dead-rates", "forward: samples a second beside dead outputs, 0 for as many as are taken.").Default("200000", "0").IntsVar(&s.deadRates)
	app.Flag("dead-seconds", "forward: how long samples come in beside dead outputs.").Default("20s").DurationVar(&s.deadFor)
	app.Flag("dead-turns", "forward: how often this is repeated.").Default("4").IntVar(&s.deadTurns)
	app.Command("pass", "Latency of writes to a Varve while its compactor seals, rolls up and expires days.")
	app.Flag("pass-days", "pass: days that are written beforehand.").Default("12").IntVar(&s.passDays)
	app.Flag("pass-series", "pass: series of these, about.").Default("1000").IntVar(&s.passSeries)
	app.Flag("pass-rate", "pass: samples a second of now.").Default("100000").IntVar(&s.passRate)
	app.Flag("pass-seconds", "pass: how long stretches are without work, and at most with it.").Default("20s").DurationVar(&s.passFor)
	app.Command("inputs", "Line protocol, OTLP, NATS, OpenTSDB and text: rate, latency, CPU and memory, beside servers that take the same.")
	app.Flag("inputs-parts", "inputs: what to measure, with commas between.").Default(strings.Join(inputPartNames(), ",")).StringVar(&s.inputsParts)
	app.Flag("inputs-series", "inputs: number of series.").Default("100000").IntVar(&s.inputsSeries)
	app.Flag("inputs-connections", "inputs: numbers of connections, for line protocol.").Default("1", "4", "16").IntsVar(&s.inputsConnections)
	app.Flag("inputs-rows", "inputs: lines a request, for line protocol.").Default("100", "1000").IntsVar(&s.inputsRows)
	app.Flag("inputs-samples", "inputs: samples a point at most, after the first round.").Default("10000000").Int64Var(&s.inputsSamples)
	app.Flag("inputs-seconds", "inputs: end a point after this time, whatever it reached.").Default("15s").DurationVar(&s.inputsFor)
	app.Command("blocks", "Import of Prometheus' blocks: rate, CPU, memory, bytes before and after, beside VictoriaMetrics' own import.")
	app.Flag("blocks-days", "blocks: span of the blocks, in whole past days; --targets says of what.").Default("4").IntVar(&s.blocksDays)
	app.Flag("blocks-hours", "blocks: span of one block, an even number; 18 is what Prometheus' compaction ends with at its default retention.").Default("18").IntVar(&s.blocksHours)
	app.Flag("blocks-directory", "blocks: where to keep them for the next run of the same day; removed at the end if empty.").StringVar(&s.blocksDirectory)
	app.Command("snapshots", "Snapshots of a Varve: how fast they are made, verified and restored, what is sent again a day later, and what writes feel of them.")
	app.Flag("snapshots-days", "snapshots: days that are sealed before the first one.").Default("7").IntVar(&s.snapshotsDays)
	app.Flag("snapshots-targets", "snapshots: how many targets replay each recording.").Default("node=20", "prometheus=10", "varve=10").StringsVar(&s.snapshotsTargets)
	app.Flag("snapshots-rates", "snapshots: samples a second beside snapshots, 0 for as many as are taken.").Default("100000", "0").IntsVar(&s.snapshotsRates)
	app.Flag("snapshots-samples", "snapshots: samples at most of a stretch of as many as are taken.").Default("40000000").Int64Var(&s.snapshotsSamples)
	app.Flag("snapshots-seconds", "snapshots: how long a stretch is.").Default("20s").DurationVar(&s.snapshotsFor)
	app.Flag("snapshots-each", "snapshots: from the start of one beside writes to that of the next, at least.").Default("1s").DurationVar(&s.snapshotsEach)
	app.Flag("snapshots-upload", "snapshots: MiB a second that are sent at most, 0 for any rate.").Default("100").IntVar(&s.snapshotsUploadMiB)
	app.Flag("snapshots-bucket", "snapshots: the folder in which buckets are made. Default: beside the data. One on another disk or in memory is more like a bucket far away.").StringVar(&s.snapshotsBucket)
	app.Flag("snapshots-turns", "snapshots: how often stretches are repeated.").Default("2").IntVar(&s.snapshotsTurns)
	app.Flag("recordings", "Where recordings of real exporters are kept; the user's cache if empty.").StringVar(&s.recordings)
	recordCommand := app.Command("record", "Record a node exporter, a Prometheus and a Varve at work, once a second.")
	recordCommand.Flag("scrapes", "How many scrapes of each: 5760 give 24 h at 15 s.").Default("5760").IntVar(&s.scrapes)
	render := app.Command("render", "Make the page of tables from the results.")
	render.Flag("check", "Change nothing; fail if the page is not what the results give.").BoolVar(&s.check)

	runs := map[string]func(context.Context, *settings) error{"render": renderPage, "record": record}
	for _, v := range append(slices.Clone(verbs), verb{"year", year}, verb{"forward", forward}, verb{"pass", pass}, verb{"inputs", inputs},
		verb{"blocks", importBlocks}, verb{"snapshots", snapshots}) {
		runs[v.name] = func(ctx context.Context, s *settings) error { return s.measure(ctx, []verb{v}) }
	}
	runs["all"] = func(ctx context.Context, s *settings) error {
		if err := s.measure(ctx, verbs); err != nil {
			return err
		}
		return renderPage(ctx, s)
	}
	return runs
}

// verb is something to measure.
type verb struct {
	name string
	run  func(context.Context, *bench) error
}

// verbs are those that compare servers and don't take long, in the order of all.
var verbs = []verb{{"ingest", ingest}, {"memory", memory}, {"restart", restart}, {"query", query}, {"fleet", replay}, {"exporters", exportersAlone}, {"churn", churn}}

// shrink makes shorter runs.
func (s *settings) shrink() {
	switch s.size {
	case "short":
		s.repetitions, s.passes = 1, 3
		s.connections, s.samples, s.seconds = []int{16}, 3_000_000, 8*time.Second
		s.seriesList, s.load = []int{100_000}, 10*time.Second
		s.hostsLong, s.roundsLong, s.hostsShort, s.roundsShort = 2, 960, 8, 240
		s.targets, s.scrapesMin = []string{"node=2", "prometheus=1", "varve=1"}, 240
		s.alone, s.pods, s.podSeries, s.lifeHours, s.settle = 1, 15, 40, []int{2}, 2*time.Minute
		s.days = 60
		s.forwardSamples, s.forwardFor, s.downFor, s.deadFor, s.deadTurns = 12_000_000, 15*time.Second, 30*time.Second, 10*time.Second, 2
		s.passDays, s.passFor = 4, 10*time.Second
		s.inputsConnections, s.inputsRows, s.inputsSamples, s.inputsFor = []int{4}, []int{100, 1000}, 3_000_000, 6*time.Second
		s.snapshotsDays, s.snapshotsTurns, s.snapshotsTargets, s.snapshotsSamples, s.snapshotsFor = 3, 1, []string{"node=2", "prometheus=1", "varve=1"}, 15_000_000, 8*time.Second
	case "quick":
		s.repetitions, s.passes = 1, 1
		s.series, s.samples, s.seconds = 20_000, 1_000_000, 5*time.Second
		s.seriesList, s.rounds, s.load = []int{20_000}, 4, 3*time.Second
		s.hostsLong, s.roundsLong, s.hostsShort, s.roundsShort = 1, 480, 4, 240
		s.targets, s.hours, s.scrapesMin = []string{"node=1", "prometheus=1", "varve=1"}, 2, 60
		s.alone, s.pods, s.podSeries, s.settle, s.quiet = 1, 3, 20, time.Minute, 2*time.Second
		s.days, s.compactDays = 8, 4
		s.forwardRates, s.forwardSamples, s.forwardFor = []int{50_000, 0}, 1_000_000, 2*time.Second
		s.liveRate, s.downFor = 80_000, 4*time.Second
		s.deadRates, s.deadFor, s.deadTurns = []int{50_000}, 2*time.Second, 1
		s.passDays, s.passSeries, s.passRate, s.passFor = 2, 40, 20_000, 2*time.Second
		s.inputsSeries, s.inputsConnections, s.inputsRows, s.inputsSamples, s.inputsFor = 10_000, []int{4}, []int{100}, 200_000, 2*time.Second
		s.blocksDays, s.blocksHours = 1, 18
		s.snapshotsDays, s.snapshotsTurns, s.snapshotsTargets = 1, 1, []string{"node=1", "prometheus=1", "varve=1"}
		s.snapshotsRates, s.snapshotsSamples, s.snapshotsFor = []int{20_000}, 1_000_000, 2*time.Second
	default:
	}
}
