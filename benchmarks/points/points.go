// Package points makes request bodies in the formats of the senders that are not
// Prometheus: line protocol of InfluxDB, JSON of OpenTSDB, protobuf of OTLP and
// exposition text; and messages for a queue, which are line protocol or remote write.
//
// A row is what a sender says at one time of one thing: some tags and one or more
// fields, each of which is a series. A round is one sample of every series, StepMillis
// after the round before; every row has a phase of its own within the step. All formats
// tell of the same rows, so that what differs between two bodies is the format alone.
//
// Rows is immutable and safe for use by several goroutines. An Encoder has state and
// belongs to one goroutine.
//
// Values are a function of the row, the field and the round, without memory. They wander
// about a mean of their own, three of eight stand still, and half of the fields are
// decimals of two digits, the others quotients of many digits, as Telegraf's percentages
// are. They imitate nothing else: what they take on a disk says little.
package points

import (
	"fmt"
	"strconv"
)

// Shape is how rows look.
type Shape string

const (
	// DevOps has ten tags and ten fields, as the processor of a host in the Time Series
	// Benchmark Suite.
	DevOps Shape = "devops"
	// Short has two tags and one field, as a sensor.
	Short Shape = "short"
)

// Config names rows. Equal configurations give equal bytes.
type Config struct {
	Seed  uint64
	Shape Shape
	// Series is at least the number of fields of a row. Rows are not cut: there may be
	// some fewer.
	Series int
	// StartMillis is when round 0 begins, StepMillis the time between rounds.
	StartMillis, StepMillis int64
}

// Rows is the fixed part of the load: what does not change from round to round.
type Rows struct {
	config      Config
	measurement string
	fields      []string
	tags        [][][2]string // of each row, by name
}

var (
	devOpsFields = []string{"usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait", "usage_irq", "usage_softirq", "usage_steal", "usage_guest", "usage_guest_nice"}
	regions      = []string{"ap-northeast-1", "ap-southeast-1", "ap-southeast-2", "eu-central-1", "eu-west-1", "sa-east-1", "us-east-1", "us-gov-1", "us-west-1", "us-west-2"}
	systems      = []string{"Ubuntu15.10", "Ubuntu16.10", "Ubuntu16.04LTS"}
	architects   = []string{"x64", "x86"}
	teams        = []string{"CHI", "LON", "NYC", "SF"}
	environments = []string{"production", "staging", "test"}
)

// New names the rows.
func New(config Config) (*Rows, error) {
	r := &Rows{config: config}
	switch config.Shape {
	case DevOps:
		r.measurement, r.fields = "cpu", devOpsFields
	case Short:
		r.measurement, r.fields = "temperature", []string{"value"}
	default:
		return nil, fmt.Errorf("points: no shape %q", config.Shape)
	}
	if config.StepMillis < 1 || config.Series < len(r.fields) {
		return nil, fmt.Errorf("points: a row of %s has %d series, and steps are 1 ms or more: %+v", config.Shape, len(r.fields), config)
	}
	for row := range config.Series / len(r.fields) {
		r.tags = append(r.tags, tagsOf(config.Shape, row))
	}
	return r, nil
}

// tagsOf are the tags of a row, by name.
func tagsOf(shape Shape, row int) [][2]string {
	region := regions[row%len(regions)]
	if shape == Short {
		return [][2]string{{"region", region}, {"sensor", fmt.Sprintf("s%06d", row)}}
	}
	draw := func(kind uint64, n int) int { return int(mix(uint64(row)<<8|kind) % uint64(n)) }
	return [][2]string{
		{"arch", architects[draw(1, 2)]}, {"datacenter", region + string(rune('a'+draw(2, 3)))}, {"hostname", "host_" + strconv.Itoa(row)},
		{"os", systems[draw(3, 3)]}, {"rack", strconv.Itoa(draw(4, 100))}, {"region", region}, {"service", strconv.Itoa(draw(5, 20))},
		{"service_environment", environments[draw(6, 3)]}, {"service_version", strconv.Itoa(draw(7, 2))}, {"team", teams[draw(8, 4)]},
	}
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.tags) }

// Fields is the number of series of a row.
func (r *Rows) Fields() int { return len(r.fields) }

// Series is the number of series.
func (r *Rows) Series() int { return r.Len() * r.Fields() }

// Config is what the rows were made from.
func (r *Rows) Config() Config { return r.config }

// Measurement is what line protocol calls the rows.
func (r *Rows) Measurement() string { return r.measurement }

// LabelsMean is the mean number of labels of a series, its name included.
func (r *Rows) LabelsMean() float64 { return float64(1 + len(r.tags[0])) }

// LabelBytesMean is the mean length of a series' label names and values, of the name as
// line protocol gives it.
func (r *Rows) LabelBytesMean() float64 {
	total := 0
	for _, tags := range r.tags {
		for _, tag := range tags {
			total += len(tag[0]) + len(tag[1])
		}
	}
	names := 0
	for _, field := range r.fields {
		names += len("__name__") + len(r.measurement) + 1 + len(field)
	}
	return float64(total)/float64(r.Len()) + float64(names)/float64(r.Fields())
}

// Selectors are selectors of PromQL that find every series once, whatever the format and
// the server made of the name, each of them series of one name and at most a tenth of all.
func (r *Rows) Selectors(format Format) []string {
	var list []string
	if r.config.Shape == Short {
		for _, region := range regions {
			list = append(list, fmt.Sprintf(`{__name__=~"temperature(.value)?",region=%q}`, region))
		}
		return list
	}
	for i, field := range r.fields {
		name := r.measurement + "_" + field
		switch {
		case format == OpenTSDB:
			name = r.measurement + "." + field
		case format == OTLP && rising(i):
			name += "_total"
		}
		list = append(list, fmt.Sprintf(`{__name__=%q}`, name))
	}
	return list
}

// Time is when a row is sampled in a round, in milliseconds.
func (r *Rows) Time(row, round int) int64 {
	phase := int64(mix(r.config.Seed^uint64(row)<<1|1) % uint64(r.config.StepMillis))
	return r.config.StartMillis + int64(round)*r.config.StepMillis + phase
}

const (
	// idleOf8 of 8 series never move, as on real hosts.
	idleOf8 = 3
	// ticks is a divisor that gives quotients of many digits: of a processor's ticks
	// between two readings there are hardly ever a round number.
	ticks = 397
)

// value is what a field of a row is in a round, from 0 to 100.
func (r *Rows) value(row, field, round int) float64 {
	series := mix(r.config.Seed ^ mix(uint64(row)<<8|uint64(field)))
	step := uint64(0)
	if series>>60 >= 2*idleOf8 {
		step = mix(series+uint64(round)) % 64
	}
	if field%2 == 0 {
		return float64(series%9900+step) / 100
	}
	return float64(series%(ticks-63)+step) / ticks * 100
}

// mix spreads the bits of x (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
