package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// requestTimeout is longer than any pause that a server under test may make.
const requestTimeout = 2 * time.Minute

// retryPause is short, so that a gate sees a server accept again at once.
const retryPause = 20 * time.Millisecond

// Refused is the error of a request that the server blamed on the sender.
type Refused struct {
	Status int
	Body   string
}

// Error implements error.
func (r *Refused) Error() string {
	return fmt.Sprintf("the server refused a valid request with %d: %s", r.Status, r.Body)
}

// Options of a Writer.
type Options struct {
	Kind     Kind
	ID       WriterID
	Protocol Protocol
	// First is the number of the first request.
	First Seq
	// URL takes remote write.
	URL string
	// PauseMax bounds the random pause between two requests. Zero: none.
	PauseMax time.Duration
	// Random decides pauses and what to do with a request that a crash interrupted.
	// It belongs to the Writer.
	Random *rand.Rand
	// Observe, when set, is called with each answer's status and Retry-After.
	Observe func(status int, retryAfter string)
}

// Writer sends the requests of one kind in order, one at a time.
// It belongs to one goroutine.
type Writer struct {
	opts   Options
	work   *Workload
	ledger *Ledger
	client *http.Client
	next   Seq
}

// NewWriter returns a writer of the workload that keeps its book in the ledger.
func NewWriter(work *Workload, ledger *Ledger, opts Options) *Writer {
	return &Writer{
		opts: opts, work: work, ledger: ledger, next: opts.First,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: requestTimeout},
	}
}

// Run sends until the context ends. A request under way is brought to its end
// first: the caller who wants it interrupted ends the server. It returns an error
// when the server refuses a request as faulty, which it never should, or
// contradicts itself in its answer.
func (w *Writer) Run(ctx context.Context) error {
	defer w.client.CloseIdleConnections()
	for ctx.Err() == nil {
		done, err := w.send(ctx)
		if err != nil {
			return fmt.Errorf("writer %s, request %d: %w", w.opts.ID, w.next, err)
		}
		// Half of the interrupted requests are never sent again, so that the checker
		// meets some of which nothing, or all, was stored.
		if done || w.opts.Random.IntN(2) == 0 {
			w.next++
		}
		if w.opts.PauseMax > 0 {
			pause(ctx, time.Duration(w.opts.Random.Int64N(int64(w.opts.PauseMax))))
		}
	}
	return nil
}

// Next is the number of the next request. It may be asked when Run returned.
func (w *Writer) Next() Seq { return w.next }

// SetURL has the next Run send to another place.
func (w *Writer) SetURL(url string) { w.opts.URL = url }

// send repeats the next request until it is acknowledged or the context ends.
func (w *Writer) send(ctx context.Context) (acked bool, err error) {
	request := w.work.Request(w.opts.Kind, w.opts.ID, w.next)
	body, contentType, err := encode(w.opts.Protocol, request)
	if err != nil {
		return false, err
	}
	w.ledger.Sent(w.opts.ID, w.next, request)
	for {
		answer, err := post(w.client, w.opts.URL, w.opts.Protocol, body, contentType)
		if err == nil && w.opts.Observe != nil {
			w.opts.Observe(answer.StatusCode, answer.Header.Get("Retry-After"))
		}
		switch {
		case err != nil: // no answer, so it may be stored or not
		case answer.StatusCode/100 == 2:
			w.ledger.Acknowledged(w.opts.ID, w.next, request)
			return true, w.checkWritten(answer.Header, request)
		case answer.StatusCode/100 == 4 && answer.StatusCode != http.StatusTooManyRequests:
			return false, &Refused{Status: answer.StatusCode, Body: answer.Status}
		}
		if ctx.Err() != nil {
			return false, nil
		}
		pause(ctx, retryPause)
	}
}

// post sends a request and returns the answer, whose status text has the beginning of the body.
func post(client *http.Client, url string, protocol Protocol, body []byte, contentType string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", map[Protocol]string{RemoteWrite1: "0.1.0", RemoteWrite2: "2.0.0"}[protocol])
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil && resp.StatusCode/100 != 2 {
		return nil, err
	}
	resp.Status += " " + string(text)
	return resp, nil
}

// checkWritten compares the counts by which a 2.0 receiver says what it stored.
func (w *Writer) checkWritten(header http.Header, request []Series) error {
	if w.opts.Protocol != RemoteWrite2 {
		return nil
	}
	var samples, histograms, exemplars int
	for i := range request {
		samples += len(request[i].Samples)
		histograms += len(request[i].Histograms)
		exemplars += len(request[i].Exemplars)
	}
	for _, c := range []struct {
		name string
		want int
	}{{"Samples", samples}, {"Histograms", histograms}, {"Exemplars", exemplars}} {
		name := "X-Prometheus-Remote-Write-" + c.name + "-Written"
		if got := header.Get(name); got != strconv.Itoa(c.want) {
			return fmt.Errorf("acknowledged with %s: %q, want %d", name, got, c.want)
		}
	}
	return nil
}

// pause waits, or less when the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
