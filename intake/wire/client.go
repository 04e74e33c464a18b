package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"varve/intake"
)

// Options is what a Target is made of.
type Options struct {
	// URL is the server's, with the prefix that its paths have.
	URL *url.URL
	// HTTP is how to connect: authentication, TLS, proxies.
	HTTP config_util.HTTPClientConfig
	// Forward lets the server's outputs have all of it: no day is leased, all go through the write port.
	Forward bool
	// Patience is how long a request may fail for reasons that pass. 0: ten minutes.
	Patience time.Duration
	// Retrying, if set, is told before each wait.
	Retrying func(err error, wait time.Duration)
	// Stalled is how long the server may do nothing at all before it is given up. 0: five minutes.
	Stalled time.Duration
	// Alive is how often the server is told that a day goes on while there is nothing to send. 0: ten seconds.
	Alive time.Duration
	// Wait waits, unless the context ends first. nil: on the clock.
	Wait func(ctx context.Context, d time.Duration) error
}

// Usual values of Options.
const (
	patienceUsual = 10 * time.Minute
	stalledUsual  = 5 * time.Minute
	aliveUsual    = 10 * time.Second
)

// Target is a running server. It implements intake.Target.
type Target struct {
	o      Options
	client *http.Client
	read   remote.ReadClient

	mu sync.Mutex // guards what follows
	// archive is the name of the one that answered last.
	archive string
	// cuts are days whose request broke off and that have yet to be done.
	cuts map[int64]cut
}

// cut is how often a day's request broke off, and since when.
type cut struct {
	since time.Time
	times int
}

var _ intake.Target = (*Target)(nil)

// readFrameBytesMax is the longest frame of an answer of remote read: upstream's default for clients.
const readFrameBytesMax = 50 << 20

// New returns a target. It connects to nothing yet.
func New(o Options) (*Target, error) {
	if o.Patience == 0 {
		o.Patience = patienceUsual
	}
	if o.Stalled == 0 {
		o.Stalled = stalledUsual
	}
	if o.Alive == 0 {
		o.Alive = aliveUsual
	}
	if o.Wait == nil {
		o.Wait = waitFor
	}
	client, err := config_util.NewClientFromConfig(o.HTTP, "varve intake")
	if err != nil {
		return nil, err
	}
	// A POST that is redirected becomes a GET.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	read, err := remote.NewReadClient("varve intake", &remote.ClientConfig{
		URL:              &config_util.URL{URL: o.URL.JoinPath("/api/v1/read")},
		Timeout:          model.Duration(o.Patience),
		HTTPClientConfig: o.HTTP,
		ChunkedReadLimit: readFrameBytesMax,
	})
	if err != nil {
		return nil, err
	}
	return &Target{o: o, client: client, read: read, cuts: map[int64]cut{}}, nil
}

// Close gives up connections that nothing uses.
func (t *Target) Close() { t.client.CloseIdleConnections() }

func waitFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Querier implements intake.Target with the server's remote read.
func (t *Target) Querier(mint, maxt int64) (storage.Querier, error) {
	return remote.NewSampleAndChunkQueryableClient(t.read, nilLabels, nil, true, nil).Querier(mint, maxt)
}

// Waits between tries double from the first to the longest, give or take 20 %.
const (
	waitFirst = time.Second
	waitMax   = 30 * time.Second
)

// again calls try until it succeeds, fails for good, or patience ends.
func (t *Target) again(ctx context.Context, try func() error) error {
	began, wait := time.Now(), waitFirst
	for {
		err := try()
		if err == nil {
			return nil
		}
		after, ok := passes(err)
		if !ok || ctx.Err() != nil {
			return err
		}
		next := max(after, time.Duration(float64(wait)*(0.8+0.4*rand.Float64())))
		if time.Since(began)+next > t.o.Patience {
			return fmt.Errorf("%w; gave up after %s: run the same command again to go on", err, t.o.Patience)
		}
		if t.o.Retrying != nil {
			t.o.Retrying(err, next)
		}
		if waiting := t.o.Wait(ctx, next); waiting != nil {
			return errors.Join(waiting, err)
		}
		wait = min(2*wait, waitMax)
	}
}

// broken is a failure of the network, or of something between here and the server.
type broken struct{ err error }

func (b *broken) Error() string { return b.err.Error() }
func (b *broken) Unwrap() error { return b.err }

// passes says whether what went wrong may be over soon, and the server's wish when to try again.
func passes(err error) (time.Duration, bool) {
	var f *fault
	if errors.As(err, &f) {
		return f.after, f.passing()
	}
	var b *broken
	return 0, errors.As(err, &b)
}

// post makes a request whose body fits in memory, and reads the answer up to its last frame, which has the tally.
func (t *Target) post(ctx context.Context, path string, query url.Values, body []byte, answer func(k kind, b []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	u := t.o.URL.JoinPath(path)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", contentType)
	watch := time.AfterFunc(t.o.Stalled, func() { cancel(t.stalled()) })
	defer watch.Stop()
	a, err := t.client.Do(r)
	if err != nil {
		return &broken{cause(ctx, err)}
	}
	defer a.Body.Close()
	if err := answered(a); err != nil {
		return err
	}
	t.mu.Lock()
	t.archive = a.Header.Get(archiveHeader)
	t.mu.Unlock()
	frames := frameReader{from: &watched{from: a.Body, watch: watch, limit: t.o.Stalled}, max: frameBytesMax}
	for {
		k, b, err := frames.next()
		if err != nil {
			return &broken{cause(ctx, err)}
		}
		switch k {
		case kindAlive:
		case kindFault:
			return readFault(b)
		case kindEnd:
			return frames.ended()
		default:
			if err := answer(k, b); err != nil {
				return err
			}
		}
	}
}

// watched puts a time limit off with each read.
type watched struct {
	from  io.Reader
	watch *time.Timer
	limit time.Duration
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	w.watch.Reset(w.limit)
	return n, err
}

func (t *Target) stalled() error {
	return fmt.Errorf("the server did nothing for %s", t.o.Stalled)
}

// cause prefers why a context ended to what that led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w: %w", c, err)
	}
	return err
}

// answerTextMax bounds what is read of an answer that is an error.
const answerTextMax = 64 << 10

// answered returns the error that an answer is, if it is one.
func answered(a *http.Response) error {
	if a.StatusCode == http.StatusOK {
		if got := a.Header.Get("Content-Type"); got != contentType {
			return fmt.Errorf("the server answers %q, not %q: use the same version of varve on both sides", got, contentType)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, answerTextMax))
	f := &fault{}
	if json.Unmarshal(text, f) != nil || f.Text == "" {
		f.Text = strings.TrimSpace(string(text[:min(len(text), 300)]))
	}
	seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	f.after = min(time.Duration(max(0, min(seconds, 1<<20)))*time.Second, retryAfterMax)
	if statuses[f.Code] != a.StatusCode {
		// Somebody else answered: a proxy, or the guard of the server, which has words of its own.
		f.Code = codeInternal
		if a.StatusCode == http.StatusTooManyRequests || a.StatusCode >= http.StatusBadGateway && a.StatusCode <= http.StatusGatewayTimeout {
			f.Code = codeUnavailable
		}
	}
	f.Text = fmt.Sprintf("the server answered %s: %s", a.Status, f.Text)
	switch a.StatusCode {
	case http.StatusNotFound:
		f.Text += " (does it run a version of varve that has an intake, and is the path of --url right?)"
	case http.StatusUnauthorized, http.StatusForbidden:
		f.Text += " (an intake needs the rights of an administrator)"
	}
	if err != nil {
		return &broken{errors.Join(f, err)}
	}
	return f
}

// Resolve implements intake.Target. It makes requests of limited size, one after the other.
func (t *Target) Resolve(ctx context.Context, series []intake.Series) error {
	var body []byte
	for len(series) > 0 {
		body = beginFrame(body[:0])
		var asked []int
		n := 0
		for n < len(series) && len(body) < frameBytesUsual {
			if labelsFit(series[n].Labels) {
				body = appendLabels(body, series[n].Labels)
				asked = append(asked, n)
			} else {
				series[n].Ref, series[n].Refused = 0, "labels too long"
			}
			n++
		}
		endFrame(body, kindSeries)
		body = appendEnd(body, tally{series: uint64(len(asked))})
		if err := t.resolve(ctx, body, series, asked); err != nil {
			return fmt.Errorf("resolve series: %w", err)
		}
		series = series[n:]
	}
	return nil
}

// Archive asks the server for the name of its archive: what was imported into one of another name is not in this one.
func (t *Target) Archive(ctx context.Context) (string, error) {
	body := appendEnd(nil, tally{})
	err := t.again(ctx, func() error {
		return t.post(ctx, pathResolve, nil, body, func(k kind, b []byte) error {
			if k != kindResolved {
				return errUnexpected(k)
			}
			return readResolved(b, nil)
		})
	})
	if err != nil {
		return "", fmt.Errorf("ask for the archive: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.archive, nil
}

// resolve makes one request and fills in those of the series that it asks for.
func (t *Target) resolve(ctx context.Context, body []byte, series []intake.Series, asked []int) error {
	if len(asked) == 0 {
		return nil
	}
	answers := make([]intake.Series, len(asked))
	return t.again(ctx, func() error {
		came := 0
		err := t.post(ctx, pathResolve, nil, body, func(k kind, b []byte) error {
			if k != kindResolved {
				return errUnexpected(k)
			}
			came++
			return readResolved(b, answers)
		})
		if err == nil && came != 1 {
			err = fmt.Errorf("%w: %d answers", ErrMalformed, came)
		}
		if err != nil {
			return err
		}
		for i, at := range asked {
			series[at].Ref, series[at].Metric, series[at].Refused = answers[i].Ref, answers[i].Metric, answers[i].Refused
		}
		return nil
	})
}

// writeBytesUsual is how long requests to write become: enough that their sync to disk costs next to nothing a sample.
const writeBytesUsual = 4 << 20

// Write implements intake.Target. It makes requests of limited size, one after the other; a long series is parted among them.
func (t *Target) Write(ctx context.Context, samples []intake.SeriesSamples) (intake.WriteReport, error) {
	w := writing{t: t, ctx: ctx, sum: intake.WriteReport{Reasons: map[string]uint64{}}}
	for i := range samples {
		if err := w.add(&samples[i]); err != nil {
			return w.sum, fmt.Errorf("write samples: %w", err)
		}
	}
	if err := w.flush(); err != nil {
		return w.sum, fmt.Errorf("write samples: %w", err)
	}
	return w.sum, nil
}

// writing gathers requests.
type writing struct {
	t     *Target
	ctx   context.Context
	body  []byte
	tally tally
	sum   intake.WriteReport
}

func (w *writing) add(s *intake.SeriesSamples) error {
	if !labelsFit(s.Labels) {
		for i := range s.Chunks {
			n := uint64(s.Chunks[i].Chunk.NumSamples())
			w.sum.Refused += n
			w.sum.Reasons["labels too long"] += n
		}
		return nil
	}
	for left := s.Chunks; len(left) > 0; {
		n, size := 0, 0
		for n < len(left) && (n == 0 || size < frameBytesUsual) {
			size += len(left[n].Chunk.Bytes())
			n++
		}
		at := len(w.body)
		w.body = appendLabels(beginFrame(w.body), s.Labels)
		var chunks, count uint64
		w.body, chunks, count = appendChunks(w.body, left[:n])
		endFrame(w.body[at:], kindSamples)
		w.tally.series++
		w.tally.chunks += chunks
		w.tally.samples += count
		left = left[n:]
		if len(w.body) >= writeBytesUsual {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writing) flush() error {
	if w.tally.series == 0 {
		return nil
	}
	w.body = appendEnd(w.body, w.tally)
	query := url.Values{}
	if w.t.o.Forward {
		query.Set("forward", "true")
	}
	err := w.t.again(w.ctx, func() error {
		came := 0
		var report intake.WriteReport
		err := w.t.post(w.ctx, pathWrite, query, w.body, func(k kind, b []byte) (err error) {
			if k != kindWriteReport {
				return errUnexpected(k)
			}
			came++
			report, err = readWriteReport(b)
			return err
		})
		if err == nil && came != 1 {
			err = fmt.Errorf("%w: %d answers", ErrMalformed, came)
		}
		if err == nil {
			addReport(&w.sum, report)
		}
		return err
	})
	w.body, w.tally = w.body[:0], tally{}
	return err
}
