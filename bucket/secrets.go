package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/thanos-io/objstore"
	"gopkg.in/yaml.v2"
)

// shown stands where a secret was.
const shown = "<secret>"

// Redact returns the configuration as it may be shown: secrets are `<secret>`. What is not YAML is not
// shown at all.
func Redact(config []byte) string {
	var f form
	if err := yaml.Unmarshal(config, &f); err != nil {
		return "<not shown: not valid YAML>"
	}
	f.Config = redact(f.Config)
	out, err := yaml.Marshal(f)
	if err != nil {
		return "<not shown: not valid YAML>"
	}
	return string(out)
}

func redact(config yaml.MapSlice) yaml.MapSlice {
	out := slices.Clone(config)
	for i, item := range out {
		switch v := item.Value.(type) {
		case yaml.MapSlice:
			out[i].Value = redact(v)
		default:
			if isSecret(fmt.Sprint(item.Key)) && v != nil && v != "" {
				out[i].Value = shown
			}
		}
	}
	return out
}

// isSecret errs on the side of hiding. Names of files are no secrets.
func isSecret(key string) bool {
	if strings.HasSuffix(key, "_file") {
		return false
	}
	return slices.ContainsFunc([]string{"key", "secret", "token", "password", "connection_string", "service_account"}, func(word string) bool {
		return strings.Contains(key, word)
	})
}

// secrets are values that no error and no log line may hold.
type secrets struct{ values []string }

// secretBytesMin: anything shorter would hide half of every sentence.
const secretBytesMin = 4

func secretsOf(config yaml.MapSlice) *secrets {
	s := &secrets{}
	s.collect(config, isSecret)
	// The longest first, since one may be part of another.
	slices.SortFunc(s.values, func(a, b string) int { return len(b) - len(a) })
	return s
}

// collect takes the values of keys that which wants.
func (s *secrets) collect(config yaml.MapSlice, which func(key string) bool) {
	for _, item := range config {
		switch v := item.Value.(type) {
		case yaml.MapSlice:
			s.collect(v, which)
		case string:
			if which(fmt.Sprint(item.Key)) {
				s.add(v)
			}
		case int, int64, uint64, float64:
			// Of digits alone: the provider takes it for a text all the same.
			if which(fmt.Sprint(item.Key)) {
				s.add(fmt.Sprint(v))
			}
		}
	}
}

// add takes a secret and what is secret inside it: the fields of a service account, the parts of a
// connection string.
func (s *secrets) add(v string) {
	if len(v) < secretBytesMin {
		return
	}
	s.values = append(s.values, v)
	var account map[string]any
	if json.Unmarshal([]byte(v), &account) == nil {
		for key, field := range account {
			if text, ok := field.(string); ok && isSecret(key) && len(text) >= secretBytesMin {
				s.values = append(s.values, text)
			}
		}
	}
	for part := range strings.SplitSeq(v, ";") {
		if key, value, ok := strings.Cut(part, "="); ok && len(value) >= secretBytesMin && (strings.HasSuffix(key, "Key") || strings.HasSuffix(key, "Signature")) {
			s.values = append(s.values, value)
		}
	}
}

// signature is the part of a signed address that gives access.
var signature = regexp.MustCompile(`(?i)\b(sig|x-amz-signature|x-goog-signature|x-amz-credential|x-amz-security-token)=[^&\s"]+`)

func (s *secrets) text(text string) string {
	for _, v := range s.values {
		text = strings.ReplaceAll(text, v, shown)
	}
	return signature.ReplaceAllString(text, "$1="+shown)
}

// hide returns the error with secrets taken out of its text, nil if it is nil. What it wraps can still be asked for.
func (s *secrets) hide(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := s.text(text); clean != text {
		return &hiddenError{text: clean, err: err}
	}
	return err
}

// hiddenError is an error whose text was cleaned.
type hiddenError struct {
	text string
	err  error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.err }

// Cause is what the providers look through errors by.
func (e *hiddenError) Cause() error { return e.err }

// quoted is a value inside an error of the YAML library.
var (
	quoted  = regexp.MustCompile("`[^`]*`")
	unknown = regexp.MustCompile(`field (\S+) not found in type \S+`)
)

// plain rewrites an error of the YAML library: no values, no types of Go.
func plain(err error) error {
	var several *yaml.TypeError
	if !errors.As(err, &several) {
		return errors.New(quoted.ReplaceAllString(err.Error(), "a value"))
	}
	lines := make([]string, 0, len(several.Errors))
	for _, line := range several.Errors {
		if m := unknown.FindStringSubmatch(line); m != nil {
			lines = append(lines, fmt.Sprintf("key %q is not known", m[1]))
			continue
		}
		_, line, _ = strings.Cut(line, ": ")
		lines = append(lines, quoted.ReplaceAllString(line, "a value"))
	}
	return errors.New(strings.Join(lines, "; "))
}

// The methods of guarded that return errors.

func (g *guarded) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	return g.hidden.hide(g.Bucket.Iter(ctx, dir, f, o...))
}

func (g *guarded) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, o ...objstore.IterOption) error {
	return g.hidden.hide(g.Bucket.IterWithAttributes(ctx, dir, f, o...))
}

func (g *guarded) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := g.Bucket.Get(ctx, name)
	if err != nil {
		return nil, g.hidden.hide(err)
	}
	return &guardedReader{r, g.hidden}, nil
}

func (g *guarded) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := g.Bucket.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, g.hidden.hide(err)
	}
	return &guardedReader{r, g.hidden}, nil
}

func (g *guarded) Exists(ctx context.Context, name string) (bool, error) {
	ok, err := g.Bucket.Exists(ctx, name)
	return ok, g.hidden.hide(err)
}

func (g *guarded) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := g.Bucket.Attributes(ctx, name)
	return a, g.hidden.hide(err)
}

func (g *guarded) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	return g.hidden.hide(g.Bucket.Upload(ctx, name, r, o...))
}

func (g *guarded) Delete(ctx context.Context, name string) error {
	return g.hidden.hide(g.Bucket.Delete(ctx, name))
}

// guardedReader cleans the errors of a body that breaks off.
type guardedReader struct {
	io.ReadCloser
	hidden *secrets
}

func (r *guardedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = r.hidden.hide(err)
	}
	return n, err
}

// ObjectSize implements objstore.ObjectSizer.
func (r *guardedReader) ObjectSize() (int64, error) {
	n, err := objstore.TryToGetSize(r.ReadCloser)
	return n, r.hidden.hide(err)
}

func (r *guardedReader) Close() error { return r.hidden.hide(r.ReadCloser.Close()) }

// kit is a go-kit logger, as the providers want one, over slog.
type kit struct {
	l      *slog.Logger
	hidden *secrets
}

// Log implements log.Logger of go-kit.
func (k kit) Log(pairs ...any) error {
	level, message := slog.LevelInfo, ""
	attrs := make([]slog.Attr, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		key, value := fmt.Sprint(pairs[i]), k.hidden.text(fmt.Sprint(pairs[i+1]))
		switch key {
		case "level":
			if err := level.UnmarshalText([]byte(value)); err != nil {
				level = slog.LevelInfo
			}
		case "msg":
			message = value
		default:
			attrs = append(attrs, slog.String(key, value))
		}
	}
	k.l.LogAttrs(context.Background(), level, message, attrs...)
	return nil
}
