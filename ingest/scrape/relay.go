package scrape

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"

	"varve/ingest"
)

// relay stands between upstream's scrape manager and the targets of a tolerant
// scraper, because upstream lets nobody else see the body of a scrape:
//
//	scrape manager --pipe--> relay --HTTP as the job wants it--> target
//
// The manager's connections end in a server inside the process, whatever the address.
// It makes the same request of the target, with the client that the job's
// configuration asks for, and answers with the target's answer, in which a text
// exposition is repaired. Everything else passes as it is: other statuses, protobuf,
// encodings that nobody asked for.
//
// For targets of scheme https the manager encrypts towards the relay too, so that
// addresses and schemes are what relabelling makes of them. It trusts the relay's
// certificate without a look, since the connection never leaves the process; the
// certificate of the target is checked by the relay as the job says.
type relay struct {
	logger  *slog.Logger
	now     func() time.Time
	pipes   *pipes
	server  *http.Server
	served  chan error
	leftOut prometheus.Counter
	unreg   func()
	lines   ingest.RareLines

	mu   sync.RWMutex // guards jobs
	jobs map[string]*relayJob
}

// relayJob is how the targets of a job are asked.
type relayJob struct {
	// conf is what the client is made of.
	conf     config_util.HTTPClientConfig
	client   *http.Client
	fallback string
	scheme   model.ValidationScheme
}

// jobHeader names the job in a request of the manager to the relay.
const jobHeader = "X-Varve-Scrape-Job"

func newRelay(logger *slog.Logger, registerer prometheus.Registerer, now func() time.Time) (*relay, error) {
	certificate, err := selfSigned(now())
	if err != nil {
		return nil, fmt.Errorf("relay for a tolerant scrape: %w", err)
	}
	r := &relay{
		logger: logger, now: now, pipes: newPipes(certificate), served: make(chan error, 1), jobs: make(map[string]*relayJob),
		leftOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "varve_scrape_lines_left_out_total",
			Help: "Lines of scraped text that could not be read and were left out of tolerant scrapes.",
		}),
	}
	if err := registerer.Register(r.leftOut); err != nil {
		return nil, fmt.Errorf("relay for a tolerant scrape: %w", err)
	}
	r.unreg = func() { registerer.Unregister(r.leftOut) }
	r.server = &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 10 * time.Second,
		// What it would log is about connections that the manager gave up.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() { r.served <- r.server.Serve(r.pipes) }()
	return r, nil
}

// close ends the relay and all requests that are in it.
func (r *relay) close() error {
	err := r.server.Close()
	if servedErr := <-r.served; !errors.Is(servedErr, http.ErrServerClosed) {
		err = errors.Join(err, servedErr)
	}
	r.unreg()
	r.replace(nil)
	return err
}

// replace makes jobs how targets are asked.
func (r *relay) replace(jobs map[string]*relayJob) {
	r.mu.Lock()
	was := r.jobs
	r.jobs = jobs
	r.mu.Unlock()
	for name, job := range was {
		if stays := jobs[name]; stays == nil || stays.client != job.client {
			job.client.CloseIdleConnections()
		}
	}
}

// client returns the client of a job: the one that it has, with its connections, if that is made of the same.
func (r *relay) client(job *config.ScrapeConfig) (*http.Client, error) {
	r.mu.RLock()
	was := r.jobs[job.JobName]
	r.mu.RUnlock()
	if was != nil && reflect.DeepEqual(was.conf, job.HTTPClientConfig) {
		return was.client, nil
	}
	return config_util.NewClientFromConfig(job.HTTPClientConfig, job.JobName)
}

// clientOptions make the scrape manager's clients connect to the relay.
func (r *relay) clientOptions() []config_util.HTTPClientOption {
	return []config_util.HTTPClientOption{
		config_util.WithDialContextFunc(r.pipes.dial),
		config_util.WithHTTP2Disabled(),
		config_util.WithNewTLSConfigFunc(func(context.Context, *config_util.TLSConfig, ...config_util.TLSConfigOption) (*tls.Config, error) {
			return &tls.Config{InsecureSkipVerify: true}, nil //nolint:gosec // the other end is in this process
		}),
	}
}

// relayed returns the configuration for the scrape manager, the same but for the
// clients, and how the relay is to ask the targets from then on.
func (r *relay) relayed(c *config.Config, jobs []*config.ScrapeConfig) (*config.Config, map[string]*relayJob, error) {
	asked := make(map[string]*relayJob, len(jobs))
	configs := make([]*config.ScrapeConfig, 0, len(jobs))
	for _, job := range jobs {
		client, err := r.client(job)
		if err != nil {
			return nil, nil, fmt.Errorf("job %q: %w", job.JobName, err)
		}
		asked[job.JobName] = &relayJob{conf: job.HTTPClientConfig, client: client, fallback: job.ScrapeFallbackProtocol.HeaderMediaType(), scheme: job.MetricNameValidationScheme}
		toRelay := *job
		toRelay.HTTPClientConfig = config_util.HTTPClientConfig{HTTPHeaders: &config_util.Headers{Headers: map[string]config_util.Header{
			jobHeader: {Values: []string{url.QueryEscape(job.JobName)}},
		}}}
		configs = append(configs, &toRelay)
	}
	out := *c
	out.ScrapeConfigs, out.ScrapeConfigFiles = configs, nil
	return &out, asked, nil
}

// ServeHTTP asks a target.
func (r *relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	name, err := url.QueryUnescape(in.Header.Get(jobHeader))
	r.mu.RLock()
	job := r.jobs[name]
	r.mu.RUnlock()
	if err != nil || job == nil {
		refuse(w, fmt.Errorf("job %q is scraped no more", name))
		return
	}
	out := in.Clone(in.Context())
	out.RequestURI, out.Body, out.ContentLength = "", nil, 0
	out.Header.Del(jobHeader)
	out.URL.Host, out.URL.Scheme = in.Host, "http"
	if in.TLS != nil {
		out.URL.Scheme = "https"
	}
	answer, err := job.client.Do(out)
	if err != nil {
		refuse(w, err)
		return
	}
	defer answer.Body.Close()
	if err := r.pass(w, answer, name, job); err != nil {
		// The manager must not take half an answer for a whole one.
		panic(http.ErrAbortHandler)
	}
}

// refuse answers with an error, in the reason phrase, which is all of an answer that
// upstream shows beside a target.
func refuse(w http.ResponseWriter, err error) {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	conn, _, hijackErr := http.NewResponseController(w).Hijack()
	if hijackErr != nil {
		http.Error(w, "", http.StatusBadGateway)
		return
	}
	if encrypted, ok := conn.(*tls.Conn); ok {
		// Its own Close would write a farewell, and a pipe has no room for one while the
		// other end writes its.
		defer encrypted.NetConn().Close()
	} else {
		defer conn.Close()
	}
	reason := strconv.QuoteToASCII(err.Error())
	// If this fails, the manager has given up already.
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 502 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", reason[1:len(reason)-1])
}

// pass answers with a target's answer.
func (r *relay) pass(w http.ResponseWriter, answer *http.Response, name string, job *relayJob) error {
	h := w.Header()
	for _, key := range []string{"Content-Type", "Content-Encoding"} {
		if v := answer.Header.Values(key); len(v) > 0 {
			h[key] = v
		}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps the server from guessing one
	}
	encoding := answer.Header.Get("Content-Encoding")
	d, text := dialectOf(answer.Header.Get("Content-Type"), job.fallback, job.scheme)
	if answer.StatusCode != http.StatusOK || !text || encoding != "" && encoding != "gzip" {
		w.WriteHeader(answer.StatusCode)
		_, err := io.Copy(w, answer.Body)
		return err
	}
	var from io.Reader = answer.Body
	if encoding == "gzip" {
		unzip, err := gzip.NewReader(answer.Body)
		if err != nil {
			return err
		}
		from = unzip
		h.Del("Content-Encoding")
	}
	w.WriteHeader(http.StatusOK)
	repairer := &repairer{dialect: d, to: w, leftOut: func(line []byte, err error) { r.tell(name, answer.Request.URL, line, err) }}
	return repairer.repair(from)
}

const (
	// lineShownBytes is how much of a line is logged.
	lineShownBytes = 200
)

// tell counts a line that was left out, and logs one now and then.
func (r *relay) tell(job string, target *url.URL, line []byte, err error) {
	r.leftOut.Inc()
	if !r.lines.Due(ingest.LogRefusals, r.now()) {
		return
	}
	r.logger.Warn("a scraped line can't be read and is left out", "job", job, "target", target.Redacted(),
		"line", strconv.QuoteToASCII(string(line[:min(len(line), lineShownBytes)])), "err", err)
}

// selfSigned makes a certificate that nobody needs to trust.
func selfSigned(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
