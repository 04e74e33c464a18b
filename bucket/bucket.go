// Package bucket opens object storage from the YAML form that Thanos and Mimir share.
//
// The form is `type:`, `config:` and `prefix:`; four types are known: FILESYSTEM, S3, GCS and AZURE, whose
// `config:` has the keys of Thanos' documentation. An unknown key is an error that names it.
//
// Beyond what the providers of objstore do: an object in a FILESYSTEM bucket is whole and durable as soon as
// it can be seen; no error and no log line holds a secret of the configuration; S3 sends parts of 16 MiB if
// nothing else is said, since one is held in memory for each upload under way.
//
// What lies in a bucket is none of this package's business. A bucket is safe for use by several goroutines.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/s3"
	"gopkg.in/yaml.v2" // of which the providers' types implement the interfaces
)

// ErrConfig is what an error about the configuration is: the operator's to mend, and retrying is no use.
var ErrConfig = errors.New("object storage configuration")

// partBytes is the size of S3's parts unless the configuration says so: a file of 160 GB fits the 10 000 parts
// that S3 allows. objstore's own 64 MiB would hold four times the memory.
const partBytes = 16 << 20

// form is the whole file.
type form struct {
	Type   string        `yaml:"type"`
	Config yaml.MapSlice `yaml:"config"`
	Prefix string        `yaml:"prefix"`
}

// provider is one type of bucket.
type provider struct {
	// blank makes a configuration that keys are tried on.
	blank    func() any
	required []string
	open     func(ctx context.Context, config []byte, name string, l *slog.Logger, s *secrets) (objstore.Bucket, error)
}

var providers = map[string]provider{
	"FILESYSTEM": {func() any { return new(filesystem.Config) }, []string{"directory"}, openFiles},
	"S3": {
		func() any { return new(s3.Config) }, []string{"bucket", "endpoint"},
		func(_ context.Context, config []byte, name string, l *slog.Logger, s *secrets) (objstore.Bucket, error) {
			return s3.NewBucket(kit{l, s}, config, name, nil)
		},
	},
	"GCS": {
		func() any { return new(gcs.Config) }, []string{"bucket"},
		func(ctx context.Context, config []byte, name string, l *slog.Logger, s *secrets) (objstore.Bucket, error) {
			return gcs.NewBucket(ctx, kit{l, s}, config, name, nil)
		},
	},
	"AZURE": {
		func() any { return new(azure.Config) }, []string{"storage_account", "container"},
		func(_ context.Context, config []byte, name string, l *slog.Logger, s *secrets) (objstore.Bucket, error) {
			return azure.NewBucket(kit{l, s}, config, name, nil)
		},
	},
}

// Open opens the bucket that the YAML names. The name tells buckets of one process apart in metrics and in
// the user agent. The logger may be nil, and so may the registerer, which gets the counters of operations and
// bytes; Close takes them from it again. Nothing is asked of the store, but that AZURE makes its container unless
// storage_create_container is false.
func Open(config []byte, name string, logger *slog.Logger, reg prometheus.Registerer) (objstore.Bucket, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f, p, err := read(config)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if f.Type == "S3" && !has(f.Config, "part_size") {
		f.Config = append(f.Config, yaml.MapItem{Key: "part_size", Value: partBytes})
	}
	inner, err := yaml.Marshal(f.Config)
	if err != nil {
		return nil, fmt.Errorf("%w: config: not what YAML can express", ErrConfig)
	}
	hidden := secretsOf(f.Config)
	b, err := p.open(context.Background(), inner, name, logger, hidden)
	if err != nil {
		return nil, hidden.hide(fmt.Errorf("%w: open the %s bucket: %w", ErrConfig, f.Type, err))
	}
	m := &registered{Registerer: reg}
	metered := objstore.WrapWithMetrics(b, m.registerer(), name)
	if m.err != nil {
		m.unregister()
		return nil, errors.Join(fmt.Errorf("register the metrics of bucket %q: %w", name, m.err), b.Close())
	}
	guarded := &guarded{Bucket: metered.WithExpectedErrs(b.IsObjNotFoundErr), hidden: hidden, metrics: m}
	return objstore.NewPrefixedBucket(guarded, strings.Trim(f.Prefix, "/")), nil
}

// Check says what is wrong with a configuration, as far as that can be said without asking the store. The error is ErrConfig.
func Check(config []byte) error {
	if _, _, err := read(config); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// read checks all that can be said without the provider. Its errors hold keys, and no values but the type.
func read(config []byte) (form, provider, error) {
	var f form
	if err := yaml.UnmarshalStrict(config, &f); err != nil {
		return f, provider{}, plain(err)
	}
	// Thanos takes the type in any case of letters.
	f.Type = strings.ToUpper(f.Type)
	p, ok := providers[f.Type]
	if !ok {
		return f, p, fmt.Errorf("type: %q is none of FILESYSTEM, S3, GCS, AZURE", f.Type)
	}
	for _, item := range f.Config {
		key := fmt.Sprint(item.Key)
		// Each key alone, so that the error can name it.
		one, err := yaml.Marshal(yaml.MapSlice{item})
		if err == nil {
			err = yaml.UnmarshalStrict(one, p.blank())
		}
		if err != nil {
			all := &secrets{}
			all.collect(yaml.MapSlice{item}, func(string) bool { return true })
			return f, p, fmt.Errorf("config.%s: %w", key, all.hide(plain(err)))
		}
	}
	for _, key := range p.required {
		if !has(f.Config, key) {
			return f, p, fmt.Errorf("config.%s: is missing, and a bucket of type %s needs it", key, f.Type)
		}
	}
	if slices.Contains(strings.Split(f.Prefix, "/"), "..") {
		return f, p, errors.New("prefix: .. has no meaning in a bucket")
	}
	return f, p, nil
}

// has says whether a key is there with something in it.
func has(config yaml.MapSlice, key string) bool {
	return slices.ContainsFunc(config, func(i yaml.MapItem) bool { return i.Key == key && i.Value != nil && i.Value != "" })
}

// guarded keeps secrets out of errors and takes the metrics back when it is closed.
type guarded struct {
	objstore.Bucket
	hidden  *secrets
	metrics *registered
}

// Close implements objstore.Bucket.
func (g *guarded) Close() error {
	g.metrics.unregister()
	return g.hidden.hide(g.Bucket.Close())
}

// registered remembers what was registered, so that it can be taken back, and doesn't panic.
type registered struct {
	prometheus.Registerer
	all []prometheus.Collector
	err error
}

// registerer is nil if there is none: the metrics are then counted for nobody.
func (r *registered) registerer() prometheus.Registerer {
	if r.Registerer == nil {
		return nil
	}
	return prometheus.WrapRegistererWithPrefix("varve_", r)
}

// Register implements prometheus.Registerer. It keeps the error and returns none: objstore would panic.
func (r *registered) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		r.err = errors.Join(r.err, err)
		return nil
	}
	r.all = append(r.all, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *registered) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c) // which keeps the error
	}
}

func (r *registered) unregister() {
	for _, c := range r.all {
		r.Unregister(c)
	}
	r.all = nil
}
