package recording

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"sync"
	"time"
)

// Target is an exporter to record.
type Target struct {
	// Name becomes the file's name.
	Name string
	// URL is of the page with the metrics.
	URL string
}

// Plan says how to record.
type Plan struct {
	Targets []Target
	// Directory gets one file a target.
	Directory string
	// Interval is the time between scrapes, Scrapes how many there shall be.
	Interval time.Duration
	Scrapes  int
	// Progress, if set, is called after each scrape, by the goroutine of its target.
	Progress func(target string, done, failed int)
}

// failuresMax is how many scrapes in a row may fail before a recording is given up.
const failuresMax = 30

// Record scrapes all targets side by side until the plan is fulfilled. If it ends
// early, by an error or with the context, the files are dropped: half a recording
// would be taken for a whole one.
func Record(ctx context.Context, plan Plan) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	writers := make([]*Writer, len(plan.Targets))
	var group sync.WaitGroup
	for i, target := range plan.Targets {
		w, err := Create(filepath.Join(plan.Directory, target.Name+Extension), target.Name)
		if err != nil {
			cancel(err)
			break
		}
		writers[i] = w
		group.Go(func() {
			if err := record(ctx, plan, target, w); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	failed := context.Cause(ctx)
	for _, w := range writers {
		switch {
		case w == nil:
		case failed != nil:
			failed = errors.Join(failed, w.Discard())
		default:
			failed = w.Close()
		}
	}
	return failed
}

// record scrapes one target. Ticks that a slow answer overran are left out, as a
// scraper leaves them out, and those within the millisecond of the scrape before: a reader
// refuses two scrapes of one time.
func record(ctx context.Context, plan Plan, target Target, w *Writer) error {
	client := &http.Client{Timeout: max(plan.Interval, 10*time.Second)}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(plan.Interval)
	defer tick.Stop()
	var body bytes.Buffer
	failures, failed := 0, 0
	last := int64(math.MinInt64)
	for done := 0; done < plan.Scrapes; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		began := time.Now()
		if began.UnixMilli() <= last {
			continue
		}
		err := fetch(ctx, client, target.URL, &body)
		if err != nil {
			failed++
			if failures++; failures > failuresMax {
				return fmt.Errorf("record %s: %d failures in a row: %w", target.Name, failures, err)
			}
			continue
		}
		failures = 0
		if err := w.Append(Scrape{Millis: began.UnixMilli(), Text: body.Bytes()}); err != nil {
			return fmt.Errorf("record %s: %w", target.Name, err)
		}
		last = began.UnixMilli()
		if done++; plan.Progress != nil {
			plan.Progress(target.Name, done, failed)
		}
	}
	return nil
}

// fetch reads a page of metrics in the text format.
func fetch(ctx context.Context, client *http.Client, url string, body *bytes.Buffer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body.Reset()
	n, err := io.Copy(body, io.LimitReader(response.Body, scrapeBytesMax+1))
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d", response.StatusCode)
	case n > scrapeBytesMax:
		return fmt.Errorf("more than %d bytes", scrapeBytesMax)
	}
	return nil
}
