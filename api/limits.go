package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// bodyReadTimeout is how long a client may take to send a request's body.
const bodyReadTimeout = 60 * time.Second

// selectorsMax bounds the match[] of one request; each is a select of its own.
const selectorsMax = 256

// bodyWithDeadline is a request body that must arrive in time. The deadline is
// lifted at its end, because it would otherwise also end the connection under a
// handler that is still at work. After any other error it stays, since net/http
// reads on before it sends the answer, and would wait for ever for a sender that
// has gone silent.
type bodyWithDeadline struct {
	io.ReadCloser
	control *http.ResponseController
	// long: each part has the time anew.
	long bool
}

// limitBodyTime bounds the time that the body may take, or for a long one each part of it.
func limitBodyTime(w http.ResponseWriter, r *http.Request, long bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(bodyReadTimeout)) == nil {
		r.Body = &bodyWithDeadline{ReadCloser: r.Body, control: c, long: long}
	}
}

func (b *bodyWithDeadline) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil && b.long:
		_ = b.control.SetReadDeadline(time.Now().Add(bodyReadTimeout))
	case err == io.EOF:
		// Without a deadline to lift there is nothing to undo.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// readForm bounds the body and reads a form out of it. Other bodies are left for
// the handler to read. The texts in it are bounded by the engine's parser.
func (a *API) readForm(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limitBodyTime(w, r, false)
		r.Body = http.MaxBytesReader(w, r.Body, a.o.Limits.FormBytes)
		err := r.ParseForm()
		if err == nil {
			err = r.ParseMultipartForm(a.o.Limits.FormBytes)
		}
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			respondError(w, http.StatusRequestEntityTooLarge, errorBadData, fmt.Sprintf("the request is larger than %d bytes", tooLarge.Limit))
			return
		case err != nil && !errors.Is(err, http.ErrNotMultipart):
			respondError(w, http.StatusBadRequest, errorBadData, err.Error())
			return
		}
		if n := len(r.Form["match[]"]); n > selectorsMax {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("%d match[] selectors, at most %d are allowed", n, selectorsMax))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limitReads bounds how many requests read from the storage without the engine,
// and for how long each.
func (a *API) limitReads(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), a.o.Limits.Timeout)
		defer cancel()
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		case <-ctx.Done():
			w.Header().Set("Retry-After", retryAfterSeconds)
			respondError(w, http.StatusServiceUnavailable, errorUnavailable, "too many requests are waiting to read")
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
