package api_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// peers are outputs as plain values: what was asked of them is written down.
type peers struct {
	asked []string
	err   error
}

func (p *peers) OutputsStatus() (any, error) { return []map[string]string{{"name": "a"}}, p.err }

func (p *peers) PauseOutput(name string) error {
	p.asked = append(p.asked, "pause "+name)
	return p.err
}

func (p *peers) ResumeOutput(name string) error {
	p.asked = append(p.asked, "resume "+name)
	return p.err
}

func (p *peers) RewindOutput(name string, from time.Time, all bool) error {
	p.asked = append(p.asked, fmt.Sprintf("rewind %s %v %v", name, from.IsZero(), all))
	if !from.IsZero() {
		p.asked = append(p.asked, from.UTC().Format(time.RFC3339))
	}
	return p.err
}

// TestOutputs shows and steers outputs, with every kind of outcome.
func TestOutputs(t *testing.T) {
	t.Parallel()
	p := &peers{}
	f := newFixture(t, func(o *api.Options) { o.Outputs, o.EnableAdmin = p, true })
	code, body := f.get("/api/v1/status/outputs")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"status":"success","data":[{"name":"a"}]}`, body)
	post := func(path string) int {
		code, _, _ := f.call("POST", "/api/v1/admin/outputs/"+path, "")
		return code
	}
	require.Equal(t, 200, post("a/pause"))
	require.Equal(t, 200, post("a/resume"))
	require.Equal(t, 200, post("a/rewind?to=now"))
	require.Equal(t, 200, post("a/rewind?to=beginning"))
	require.Equal(t, 200, post("a/rewind?to=1738281600"))
	require.Equal(t, 400, post("a/rewind"))
	require.Equal(t, 400, post("a/rewind?to=x"))
	require.Equal(t, []string{"pause a", "resume a", "rewind a true false", "rewind a true true", "rewind a false false", "2025-01-31T00:00:00Z"}, p.asked)
	p.err = fmt.Errorf("%w: b", api.ErrNoOutput)
	require.Equal(t, 404, post("b/pause"))
	p.err = errors.New("the disk is full")
	code, header, _ := f.call("POST", "/api/v1/admin/outputs/a/pause", "")
	require.Equal(t, 503, code)
	require.NotEmpty(t, header.Get("Retry-After"))
	code, _ = f.get("/api/v1/status/outputs")
	require.Equal(t, 503, code)
}
