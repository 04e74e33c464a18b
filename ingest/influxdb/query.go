package influxdb

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Query returns the handler for GET and POST /query. It answers what clients ask before
// they write: CREATE DATABASE, CREATE RETENTION POLICY, SHOW DATABASES and SHOW RETENTION
// POLICIES. Databases mean nothing here beyond what Options.DatabaseLabel makes of
// them: creating one is always a success, and those listed are the ones that were
// created or written to since the start.
func (in *Input) Query() http.Handler { return http.HandlerFunc(in.serveQuery) }

// queryBytesMax bounds the form of a query.
const queryBytesMax = 1 << 20

func (in *Input) serveQuery(w http.ResponseWriter, r *http.Request) {
	in.head(w, r)
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		refuseV1(w, http.StatusMethodNotAllowed, "only GET and POST are allowed")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, queryBytesMax)
	if err := r.ParseForm(); err != nil {
		refuseV1(w, http.StatusBadRequest, "error parsing form values: "+err.Error())
		return
	}
	query := r.Form.Get("q")
	if strings.TrimSpace(query) == "" {
		refuseV1(w, http.StatusBadRequest, `missing required parameter "q"`)
		return
	}
	statements, err := parseStatements(query)
	if err != nil {
		refuseV1(w, http.StatusBadRequest, "error parsing query: "+err.Error())
		return
	}
	results := make([]queryResult, 0, len(statements))
	for i, s := range statements {
		result := in.run(s, r.Form.Get("db"))
		result.StatementID = i
		results = append(results, result)
	}
	answerJSON(w, http.StatusOK, struct {
		Results []queryResult `json:"results"`
	}{results})
}

// queryResult is the result of one statement.
type queryResult struct {
	StatementID int           `json:"statement_id"`
	Series      []querySeries `json:"series,omitempty"`
	Error       string        `json:"error,omitempty"`
}

type querySeries struct {
	Name    string   `json:"name,omitempty"`
	Columns []string `json:"columns"`
	Values  [][]any  `json:"values,omitempty"`
}

func (in *Input) run(s statement, database string) queryResult {
	switch s.kind {
	case createDatabase:
		in.databases.add(s.name)
	case showDatabases:
		series := querySeries{Name: "databases", Columns: []string{"name"}}
		for _, name := range in.databases.list() {
			series.Values = append(series.Values, []any{name})
		}
		return queryResult{Series: []querySeries{series}}
	case showPolicies:
		if s.name == "" && database == "" {
			return queryResult{Error: "database name required"}
		}
		return queryResult{Series: []querySeries{{
			Columns: []string{"name", "duration", "shardGroupDuration", "replicaN", "default"},
			Values:  [][]any{{"autogen", "0s", "168h0m0s", 1, true}},
		}}}
	}
	return queryResult{}
}

// databases are the names that clients know, in the order they came.
type databases struct {
	mu    sync.RWMutex // guards names
	names []string
}

const (
	databasesMax         = 1000
	databaseNameBytesMax = 256
)

func (d *databases) add(name string) {
	if name == "" || len(name) > databaseNameBytesMax {
		return
	}
	d.mu.RLock()
	known := slices.Contains(d.names, name) || len(d.names) >= databasesMax
	d.mu.RUnlock()
	if known {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.names, name) {
		d.names = append(d.names, strings.Clone(name))
	}
}

func (d *databases) list() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.names)
}

// statement is one statement of InfluxQL that is answered.
type statement struct {
	kind statementKind
	name string
}

type statementKind uint8

const (
	createDatabase statementKind = iota
	createPolicy
	showDatabases
	showPolicies
)

// queryStatementsMax bounds the statements of one query.
const queryStatementsMax = 100

// parseStatements reads a query. Its errors are in the form of InfluxDB.
func parseStatements(query string) ([]statement, error) {
	t := &tokens{text: query}
	t.next()
	var out []statement
	for {
		for t.is(";") {
			t.next()
		}
		if t.kind == tokenEnd && len(out) > 0 {
			return out, nil
		}
		s, err := t.statement()
		if err != nil {
			return nil, err
		}
		if len(out) == queryStatementsMax {
			return nil, fmt.Errorf("more than %d statements", queryStatementsMax)
		}
		out = append(out, s)
		if t.kind != tokenEnd && !t.is(";") {
			return nil, t.expected(";")
		}
	}
}

func (t *tokens) statement() (s statement, err error) {
	switch {
	case t.word("CREATE"):
		switch {
		case t.word("DATABASE"):
			if s.name, err = t.identifier(); err != nil {
				return s, err
			}
			if t.is("WITH") {
				t.skip()
			}
			return s, nil
		case t.word("RETENTION"):
			if !t.word("POLICY") {
				return s, t.expected("POLICY")
			}
			s.kind = createPolicy
			if s.name, err = t.identifier(); err == nil && !t.is("ON") {
				err = t.expected("ON")
			}
			t.skip()
			return s, err
		}
		return s, t.expected("DATABASE, RETENTION")
	case t.word("SHOW"):
		switch {
		case t.word("DATABASES"):
			s.kind = showDatabases
			return s, nil
		case t.word("RETENTION"):
			if !t.word("POLICIES") {
				return s, t.expected("POLICIES")
			}
			s.kind = showPolicies
			if t.word("ON") {
				s.name, err = t.identifier()
			}
			return s, err
		}
		return s, t.expected("DATABASES, RETENTION")
	}
	return s, t.expected("CREATE, SHOW; the data is read with PromQL")
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted // an identifier in double quotes
	tokenOther
)

// tokens cuts InfluxQL into words, quoted identifiers and single characters.
type tokens struct {
	text   string
	at     int // behind the token
	from   int // of the token
	kind   tokenKind
	spoken string // the token, without quotes
}

func (t *tokens) next() {
	for t.at < len(t.text) && strings.IndexByte(" \t\r\n", t.text[t.at]) >= 0 {
		t.at++
	}
	t.from = t.at
	if t.at == len(t.text) {
		t.kind, t.spoken = tokenEnd, "EOF"
		return
	}
	switch c := t.text[t.at]; {
	case c == '"':
		t.kind = tokenQuoted
		t.spoken = t.quoted()
	case letter(c):
		for t.at < len(t.text) && letter(t.text[t.at]) {
			t.at++
		}
		t.kind, t.spoken = tokenWord, t.text[t.from:t.at]
	default:
		t.at++
		t.kind, t.spoken = tokenOther, t.text[t.from:t.at]
	}
}

// quoted reads what stands in double quotes, where a backslash escapes. The end of the
// text ends it too.
func (t *tokens) quoted() string {
	var b strings.Builder
	for t.at++; t.at < len(t.text) && t.text[t.at] != '"'; t.at++ {
		if t.text[t.at] == '\\' && t.at+1 < len(t.text) {
			t.at++
		}
		b.WriteByte(t.text[t.at])
	}
	t.at = min(t.at+1, len(t.text))
	return b.String()
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}

// is tells whether the token is a word or a character.
func (t *tokens) is(word string) bool {
	return (t.kind == tokenWord || t.kind == tokenOther) && strings.EqualFold(t.spoken, word)
}

// word goes behind the token if it is the word.
func (t *tokens) word(word string) bool {
	if !t.is(word) {
		return false
	}
	t.next()
	return true
}

func (t *tokens) identifier() (string, error) {
	if t.kind != tokenQuoted && t.kind != tokenWord {
		return "", t.expected("identifier")
	}
	name := t.spoken
	t.next()
	return name, nil
}

// skip goes to the end of the statement.
func (t *tokens) skip() {
	for t.kind != tokenEnd && !t.is(";") {
		t.next()
	}
}

// expected is the error about the token, in the form of InfluxDB.
func (t *tokens) expected(what string) error {
	return fmt.Errorf("found %s, expected %s at line 1, char %d", printable([]byte(cut(t.spoken, databaseNameBytesMax))), what, t.from+1)
}
