package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"varve/api/access"
)

// ErrNoSnapshots is wrapped by errors about snapshots where no place for them is configured.
var ErrNoSnapshots = errors.New("no place for snapshots is configured: set snapshots.objstore_config_file")

// ErrNoSnapshot is wrapped by errors about a snapshot that there is not.
var ErrNoSnapshot = errors.New("no such snapshot")

// ErrSnapshotBusy is wrapped by the error of asking for work on snapshots while other work on them is under way.
var ErrSnapshotBusy = errors.New("other work on snapshots is under way")

// ErrSnapshotDamaged is wrapped by the error of looking at a snapshot that can't be restored, and by those that a later try won't mend.
var ErrSnapshotDamaged = errors.New("the snapshot can't be restored")

// ErrSnapshotRule is wrapped by the error of removing what no rule keeps where there is no rule.
var ErrSnapshotRule = errors.New("no rule says which snapshots stay: set snapshots.keep")

// Snapshots are copies of the archive in object storage. It may be called by several goroutines.
type Snapshots interface {
	// SnapshotStatus tells, as JSON, what is configured, under way and planned, and what became of the last ones.
	SnapshotStatus() any
	// ListSnapshots lists, as JSON, what is in the storage, the newest first.
	ListSnapshots(ctx context.Context) (any, error)
	// CreateSnapshot makes one. With wait it returns when that is whole, and what was made, as JSON; else at once.
	CreateSnapshot(ctx context.Context, wait bool) (any, error)
	// VerifySnapshot looks whether the files of one are all there; with contents it reads them.
	VerifySnapshot(ctx context.Context, id string, contents bool) (any, error)
	// PruneSnapshots removes those that the rule doesn't keep; with dry it only tells which.
	PruneSnapshots(ctx context.Context, dry bool) (any, error)
	// LocalSnapshot makes a copy beside the archive, of hard links, and returns the name of its folder in "snapshots" of the
	// data directory.
	LocalSnapshot(ctx context.Context) (name string, err error)
}

func (a *API) addSnapshots(t *table) {
	if a.o.Snapshots == nil {
		return
	}
	s := a.o.Snapshots
	const base = "/api/v1/admin/snapshots"
	t.add("/api/v1/status/snapshots", access.Metadata, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { respond(w, s.SnapshotStatus()) }), http.MethodGet)
	t.add(base, access.Admin, a.admin(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			list, err := s.ListSnapshots(r.Context())
			a.answerSnapshots(w, r, list, err)
			return
		}
		a.withFlag(w, r, "wait", s.CreateSnapshot)
	}), http.MethodGet, http.MethodPost)
	t.add(base+"/{id}/verify", access.Admin, a.admin(func(w http.ResponseWriter, r *http.Request) {
		a.withFlag(w, r, "contents", func(ctx context.Context, contents bool) (any, error) {
			return s.VerifySnapshot(ctx, r.PathValue("id"), contents)
		})
	}), http.MethodPost)
	t.add(base+"/prune", access.Admin, a.admin(func(w http.ResponseWriter, r *http.Request) {
		a.withFlag(w, r, "dry_run", s.PruneSnapshots)
	}), http.MethodPost)
	// Prometheus' own: clients of it find the folder under the same name.
	t.add("/api/v1/admin/tsdb/snapshot", access.Admin, a.admin(func(w http.ResponseWriter, r *http.Request) {
		name, err := s.LocalSnapshot(r.Context())
		a.answerSnapshots(w, r, struct {
			Name string `json:"name"`
		}{name}, err)
	}), http.MethodPost, http.MethodPut)
}

// withFlag does what a request with one parameter, true or false, asks for.
func (a *API) withFlag(w http.ResponseWriter, r *http.Request, name string, do func(context.Context, bool) (any, error)) {
	flag := false
	if text := r.URL.Query().Get(name); text != "" {
		var err error
		if flag, err = strconv.ParseBool(text); err != nil {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("%s: %q is neither true nor false", name, text))
			return
		}
	}
	data, err := do(r.Context(), flag)
	a.answerSnapshots(w, r, data, err)
}

func (a *API) answerSnapshots(w http.ResponseWriter, r *http.Request, data any, err error) {
	switch {
	case err == nil:
		respond(w, data)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil: // The client went away.
	case errors.Is(err, ErrNoSnapshot), errors.Is(err, ErrNoSnapshots):
		respondError(w, http.StatusNotFound, errorNotFound, err.Error())
	case errors.Is(err, ErrSnapshotBusy):
		respondError(w, http.StatusConflict, errorConflict, err.Error())
	case errors.Is(err, ErrSnapshotRule):
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
	case errors.Is(err, ErrSnapshotDamaged):
		respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
	default:
		// The storage, the network or the disk: worth another try.
		w.Header().Set("Retry-After", retryAfterSeconds)
		respondError(w, http.StatusServiceUnavailable, errorUnavailable, err.Error())
	}
}
