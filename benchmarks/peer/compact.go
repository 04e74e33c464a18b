package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Compacted is what a Varve's compactor says that it did.
type Compacted struct {
	Sealed  []CompactedDay `json:"sealed"`
	Rolled  []CompactedDay `json:"rolled"`
	Expired []any          `json:"expired"`
	Trimmed []any          `json:"trimmed"`
	Seconds float64        `json:"seconds"`
}

// CompactedDay is one day that was sealed or rolled up.
type CompactedDay struct {
	Day     string `json:"day"`
	Samples int64  `json:"samples"`
	// Buckets are of all resolutions; sealing makes none.
	Buckets     int64   `json:"buckets"`
	BundleBytes int64   `json:"bundleBytes"`
	Seconds     float64 `json:"seconds"`
}

// Compact has a Varve seal and roll up what is due, at full speed, and waits for it.
func (s *Server) Compact(ctx context.Context) (Compacted, error) {
	var done Compacted
	err := s.ask(ctx, http.MethodPost, "/api/v1/admin/compactor/run?wait=true", &done)
	return done, err
}

// CompactForced is Compact, and lets expire how much ever is past its age.
func (s *Server) CompactForced(ctx context.Context) (Compacted, error) {
	var done Compacted
	err := s.ask(ctx, http.MethodPost, "/api/v1/admin/compactor/run?wait=true&force=true", &done)
	return done, err
}

// CompactorStatus is what a Varve's compactor is at.
type CompactorStatus struct {
	Running   string   `json:"running"`
	Planned   []string `json:"planned"`
	LastError string   `json:"lastError"`
}

// CompactorStatus asks what the compactor of a Varve is at.
func (s *Server) CompactorStatus(ctx context.Context) (CompactorStatus, error) {
	var status CompactorStatus
	err := s.ask(ctx, http.MethodGet, "/api/v1/status/compactor", &status)
	return status, err
}

// PauseCompactor keeps the compactor of a Varve from working in the background until
// ResumeCompactor.
func (s *Server) PauseCompactor(ctx context.Context) error {
	return s.ask(ctx, http.MethodPost, "/api/v1/admin/compactor/pause", &struct{}{})
}

// ResumeCompactor is described at PauseCompactor.
func (s *Server) ResumeCompactor(ctx context.Context) error {
	return s.ask(ctx, http.MethodPost, "/api/v1/admin/compactor/resume", &struct{}{})
}

// Reload has a Varve read its configuration again, which must allow it.
func (s *Server) Reload(ctx context.Context) error {
	status, text, err := s.post(ctx, http.MethodPost, "/-/reload", nil, http.Header{})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %.300s", status, text)
	}
	if err != nil {
		return fmt.Errorf("reload %s: %w", s.Spec.Name, err)
	}
	return nil
}

// FamilyBytes asks a Varve that runs for the sizes of its column families' files.
// What is in the write-ahead log only is not part of them.
func (s *Server) FamilyBytes(ctx context.Context) (map[string]int64, error) {
	var status struct {
		BytesByFamily []struct {
			Name  string `json:"name"`
			Value int64  `json:"value"`
		} `json:"bytesByFamily"`
	}
	if err := s.ask(ctx, http.MethodGet, "/api/v1/status/tsdb?limit=1000", &status); err != nil {
		return nil, err
	}
	if len(status.BytesByFamily) == 0 {
		return nil, fmt.Errorf("ask %s: its status names no families", s.Spec.Name)
	}
	bytes := map[string]int64{}
	for _, family := range status.BytesByFamily {
		bytes[family.Name] = family.Value
	}
	return bytes, nil
}

// ask sends a request without a body and reads the data of the answer.
func (s *Server) ask(ctx context.Context, method, path string, data any) error {
	status, text, err := s.post(ctx, method, path, nil, http.Header{})
	if err != nil {
		return fmt.Errorf("ask %s: %w", s.Spec.Name, err)
	}
	var answer struct {
		Data  json.RawMessage `json:"data"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status/100 != 2 {
		return errors.Join(fmt.Errorf("ask %s: %s: status %d: %.300s", s.Spec.Name, path, status, text), err)
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		return fmt.Errorf("ask %s: %s: %w: %.300s", s.Spec.Name, path, err, text)
	}
	return nil
}
