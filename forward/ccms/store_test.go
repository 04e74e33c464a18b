package ccms_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// store is a cc-metric-store by its rules C1 to C14, as far as a sender can see or break them. It writes down as faults what
// the real one takes in silence to someone's harm.
type store struct {
	// key of the tokens; nil: open.
	key ed25519.PublicKey
	now func() time.Time
	// metrics are those of its configuration, with the seconds of a slot.
	metrics map[string]int64

	mu     sync.Mutex
	faults []string
	// slots are the values by metric, cluster, host and level, and the second.
	slots  map[string]map[int64]float64
	tokens []string
}

// ServeHTTP is /api/write.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.TrimSuffix(r.URL.Path, "/") != "/api/write" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed) // C1
		return
	}
	if err := s.authorize(r.Header.Get("Authorization")); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = s.write(string(body))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// authorize checks a token: C11.
func (s *store) authorize(header string) error {
	if s.key == nil {
		return nil
	}
	token, bearer := strings.CutPrefix(header, "Bearer ")
	s.tokens = append(s.tokens, token)
	parts := strings.Split(token, ".")
	if !bearer || len(parts) != 3 {
		return errors.New("no token")
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return err
		}
	}
	var head struct{ Alg, Typ string }
	var claims struct{ Exp, Iat int64 }
	if err := errors.Join(json.Unmarshal(raw[0], &head), json.Unmarshal(raw[1], &claims)); err != nil {
		return err
	}
	if head.Alg != "EdDSA" || head.Typ != "JWT" || !ed25519.Verify(s.key, []byte(parts[0]+"."+parts[1]), raw[2]) {
		return errors.New("the signature is not ours")
	}
	if now := s.now().Unix(); claims.Exp <= now || claims.Iat > now {
		return errors.New("Token is expired")
	}
	return nil
}

// write takes lines up to the first one that it can't read, which costs the rest: C3, C4, C12.
func (s *store) write(body string) error {
	for line := range strings.SplitSeq(strings.TrimSuffix(body, "\n"), "\n") {
		if err := s.line(line); err != nil {
			return fmt.Errorf("%w in %q", err, line)
		}
	}
	return nil
}

func (s *store) line(line string) error {
	var parts []string
	from := 0
	for i := range len(line) {
		if line[i] == ' ' && (i == 0 || line[i-1] != '\\') {
			parts = append(parts, line[from:i])
			from = i + 1
		}
	}
	if parts = append(parts, line[from:]); len(parts) != 3 {
		return errors.New("not three parts")
	}
	text, is := strings.CutPrefix(parts[1], "value=")
	v, err := strconv.ParseFloat(text, 64)
	if !is || err != nil || v-v != 0 {
		return errors.New("the field is not value, or no finite number") // C3, C4
	}
	at, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || at <= 0 || at > 1<<32 {
		return errors.New("the time is not in seconds") // C5
	}
	series := strings.Split(strings.ReplaceAll(parts[0], `\ `, " "), ",")
	tags := map[string]string{}
	for _, t := range series[1:] {
		name, v, _ := strings.Cut(t, "=")
		tags[name] = v
	}
	s.judge(line, series[0], tags)
	if s.slots == nil {
		s.slots = map[string]map[int64]float64{}
	}
	if s.slots[parts[0]] == nil {
		s.slots[parts[0]] = map[int64]float64{}
	}
	for before := range s.slots[parts[0]] {
		if at < before {
			s.faults = append(s.faults, "out of order: "+line) // C7
		}
	}
	s.slots[parts[0]][at] = v // C6: the last write wins
	return nil
}

// judge notes what would be dropped or booked elsewhere without a word.
func (s *store) judge(line, metric string, tags map[string]string) {
	note := func(bad bool, what string) {
		if bad {
			s.faults = append(s.faults, what+": "+line)
		}
	}
	_, known := s.metrics[metric]
	note(!known, "C8 unknown metric")
	note(tags["cluster"] == "" || tags["hostname"] == "", "C9 no cluster or hostname")
	note(tags["type"] == "", "C2 no type")
	note((tags["stype"] == "") != (tags["stype-id"] == ""), "C2 half a subtype")
	for _, name := range []string{"cluster", "hostname"} {
		note(strings.Contains(tags[name], "..") || strings.ContainsAny(tags[name], `/\`), "C10 a name that is no folder")
	}
	for name := range tags {
		switch name {
		case "cluster", "hostname", "type", "type-id", "stype", "stype-id":
		default:
			note(true, "C2 a tag that is ignored")
		}
	}
}
