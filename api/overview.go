package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"varve/api/access"
)

// Overview tells what is stored and what it takes. It may be called by several goroutines.
type Overview interface {
	// HasData tells whether there are samples of anything but what the server keeps of itself.
	HasData(ctx context.Context) (bool, error)
	// Resolutions are the lengths of the buckets that are made, ascending.
	Resolutions() []time.Duration
	ArchiveStatus(ctx context.Context) (ArchiveStatus, error)
	// Days lists the days, the newest first.
	Days(ctx context.Context, r DaysRequest) (DayList, error)
	Cardinality(ctx context.Context, r CardinalityRequest) (Cardinality, error)
}

// ArchiveStatus is the answer of status/archive.
type ArchiveStatus struct {
	// DiskBytes are those of table files, OtherBytes those of the archive's other files, the write-ahead log before all. FreeBytes is
	// what the file system has left.
	DiskBytes  uint64 `json:"diskBytes"`
	OtherBytes uint64 `json:"otherBytes"`
	FreeBytes  uint64 `json:"freeBytes"`
	// Series have a record; Samples are sealed, and BytesPerSample is what each of those takes, timestamps included. It is 0
	// before there are any.
	Series         uint64  `json:"series"`
	Samples        uint64  `json:"samples"`
	BytesPerSample float64 `json:"bytesPerSample"`
	// ReadOnly is why writes are refused at the moment, empty if they aren't.
	ReadOnly    string            `json:"readOnly"`
	Families    []FamilyBytes     `json:"families"`
	Resolutions []ResolutionBytes `json:"resolutions"`
	Integrity   Integrity         `json:"integrity"`
}

// FamilyBytes is what a kind of data takes in table files.
type FamilyBytes struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
}

// ResolutionBytes is what there is of raw samples, or of the buckets of a resolution.
type ResolutionBytes struct {
	// Resolution is raw or a length such as 5m.
	Resolution string `json:"resolution"`
	Days       int    `json:"days"`
	// Samples are sealed ones, or buckets. Bytes are those of keys and values, shared timestamps included.
	Samples uint64 `json:"samples"`
	Bytes   uint64 `json:"bytes"`
	// Oldest and Newest are the first and the last day; null if there is none.
	Oldest *time.Time `json:"oldest"`
	Newest *time.Time `json:"newest"`
}

// Integrity is what is known of damage.
type Integrity struct {
	// FaultsSinceStart were met by queries, background work and checks.
	FaultsSinceStart uint64       `json:"faultsSinceStart"`
	LastFault        *Fault       `json:"lastFault"`
	Check            *CheckStatus `json:"check"`
}

// Fault is damage that was met.
type Fault struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// DaysRequest asks for days by their starts: from Start to End, both inclusive.
type DaysRequest struct {
	Start, End time.Time
	Limit      int
}

// DayList are days, and how many were left out.
type DayList struct {
	Days []Day
	Left int
}

// Day is an entry of status/days.
type Day struct {
	Day string `json:"day"`
	// State is open (not over), waiting (to be sealed), sealing, sealed, late (sealed, and samples came since), expired (only buckets are
	// left).
	State string `json:"state"`
	// Samples are sealed, Bytes are theirs.
	Samples        uint64  `json:"samples"`
	Bytes          uint64  `json:"bytes"`
	BytesPerSample float64 `json:"bytesPerSample"`
	// PendingBytes is about what waits to be sealed, of which what is in memory is missing.
	PendingBytes uint64     `json:"pendingBytes"`
	Sealed       *time.Time `json:"sealed"`
	// Held and Owed say why the day can't be sealed, or expire, now: a delete, or the output that waits for samples of it.
	Held    bool        `json:"held"`
	Owed    string      `json:"owed"`
	Rollups []DayRollup `json:"rollups"`
}

// DayRollup is how far a day is rolled up.
type DayRollup struct {
	Resolution string `json:"resolution"`
	// State is waiting, rolling, rolled, or dirty: rolled, and some series are to be made anew.
	State   string `json:"state"`
	Buckets uint64 `json:"buckets"`
	Bytes   uint64 `json:"bytes"`
}

// CardinalityRequest asks how series and bytes are spread over the values of a label, or over labels.
type CardinalityRequest struct {
	Label    string
	Matchers [][]*labels.Matcher
	// Days, up to today, are looked at.
	Days     int
	BySeries bool
	Limit    int
}

// Cardinality is the answer of status/cardinality.
type Cardinality struct {
	Label string `json:"label,omitempty"`
	// Series had samples in the time that was looked at, the last Days days. Bytes is about what those samples take.
	Series uint64 `json:"series"`
	Bytes  uint64 `json:"bytes"`
	Days   int    `json:"days"`
	// One of the two lists is there. Left are not listed.
	Values *[]ValueCardinality `json:"values,omitempty"`
	Labels *[]LabelCardinality `json:"labels,omitempty"`
	Left   int                 `json:"left"`
}

// ValueCardinality is what series with a value of the label take.
type ValueCardinality struct {
	Value  string `json:"value"`
	Series uint64 `json:"series"`
	Bytes  uint64 `json:"bytes"`
}

// LabelCardinality is what series with a label take.
type LabelCardinality struct {
	Label  string `json:"label"`
	Values uint64 `json:"values"`
	Series uint64 `json:"series"`
	Bytes  uint64 `json:"bytes"`
}

// addOverview serves what the page shows of the archive.
func (a *API) addOverview(t *table) {
	read := func(h http.HandlerFunc) http.Handler { return a.readForm(a.limitReads(h)) }
	if a.o.Overview != nil {
		t.add("/api/v1/status/archive", access.Metadata, read(a.serveArchive), http.MethodGet)
		t.add("/api/v1/status/days", access.Metadata, read(a.serveDays), http.MethodGet)
		t.add("/api/v1/status/cardinality", access.Metadata, read(a.serveCardinality), http.MethodGet, http.MethodPost)
	}
	if a.o.Checker != nil {
		t.add("/api/v1/admin/check/run", access.Admin, a.readForm(a.admin(a.serveCheck)), http.MethodPost)
		t.add("/api/v1/admin/check/stop", access.Admin, a.admin(a.serveStopCheck), http.MethodPost)
	}
}

func (a *API) serveArchive(w http.ResponseWriter, r *http.Request) {
	s, err := a.o.Overview.ArchiveStatus(r.Context())
	if err != nil {
		a.respondOverview(w, r, err)
		return
	}
	if a.o.Checker != nil {
		s.Integrity.Check = a.o.Checker.CheckStatus()
	}
	respond(w, s)
}

// Bounds of the lists: without a limit, and at most.
const (
	daysWithout, daysMax               = 400, 20_000
	cardinalityWithout, cardinalityMax = 100, 10_000
	// windowWithout is how many days cardinality looks back without "days", windowMax at most.
	windowWithout, windowMax = 30, 366
)

func (a *API) serveDays(w http.ResponseWriter, r *http.Request) {
	limit, err := positiveParam(r, "limit", daysWithout, daysMax)
	var start, end int64
	if err == nil {
		start, err = dayParam(r, "start", math.MinInt64)
	}
	if err == nil {
		end, err = dayParam(r, "end", math.MaxInt64)
	}
	if err == nil && start > end {
		err = errors.New("end timestamp must not be before start timestamp")
	}
	if err != nil {
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	}
	list, err := a.o.Overview.Days(r.Context(), DaysRequest{Start: time.UnixMilli(start), End: time.UnixMilli(end), Limit: limit})
	if err != nil {
		a.respondOverview(w, r, err)
		return
	}
	response := v1.Response{Status: "success", Data: list.Days}
	if list.Left > 0 {
		response.Infos = []string{fmt.Sprintf("%d older days are not listed: ask for them with end or limit", list.Left)}
	}
	writeJSON(w, http.StatusOK, response)
}

// dayParam is timeParam, and takes a date too.
func dayParam(r *http.Request, name string, absent int64) (int64, error) {
	if day, err := time.Parse(time.DateOnly, r.Form.Get(name)); err == nil {
		return day.UnixMilli(), nil
	}
	return timeParam(r, name, absent)
}

func (a *API) serveCardinality(w http.ResponseWriter, r *http.Request) {
	request, err := a.cardinalityRequest(r)
	if err != nil {
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	}
	c, err := a.o.Overview.Cardinality(r.Context(), request)
	if err != nil {
		a.respondOverview(w, r, err)
		return
	}
	respond(w, c)
}

func (a *API) cardinalityRequest(r *http.Request) (c CardinalityRequest, err error) {
	c.Label = r.Form.Get("label")
	switch sort := r.Form.Get("sort"); sort {
	case "", "bytes":
	case "series":
		c.BySeries = true
	default:
		return c, fmt.Errorf("sort is %q: use bytes or series", sort)
	}
	if c.Limit, err = positiveParam(r, "limit", cardinalityWithout, cardinalityMax); err != nil {
		return c, err
	}
	if c.Days, err = positiveParam(r, "days", windowWithout, windowMax); err != nil {
		return c, err
	}
	for _, s := range r.Form["match[]"] {
		ms, err := a.o.Parser.ParseMetricSelector(s)
		if err != nil {
			return c, fmt.Errorf("invalid parameter \"match[]\": %w", err)
		}
		c.Matchers = append(c.Matchers, ms)
	}
	return c, nil
}

func (a *API) respondOverview(w http.ResponseWriter, r *http.Request, err error) {
	code, known := a.status(err)
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil: // The client went away.
	case !known:
		respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
	case code == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", retryAfterSeconds)
		respondError(w, code, errorUnavailable, err.Error())
	case code == http.StatusUnprocessableEntity:
		respondError(w, code, errorExecution, err.Error())
	default:
		respondError(w, code, errorInternal, err.Error())
	}
}
