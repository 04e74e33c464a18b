package peer

import (
	"context"
	"net/http"
)

// Output is what a Varve says of one of its outputs.
type Output struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Error  string `json:"error"`
	Totals struct {
		Sent     int64 `json:"sent"`
		Dropped  int64 `json:"dropped"`
		Refused  int64 `json:"refused"`
		Filtered int64 `json:"filtered"`
	} `json:"totals"`
	Lag struct {
		Seconds   float64 `json:"seconds"`
		Samples   int64   `json:"samples"`
		Bytes     int64   `json:"bytes"`
		GapDays   int     `json:"gapDays"`
		WholeFrom string  `json:"wholeFrom"`
	} `json:"lag"`
}

// Idle says that the output has nothing left to send.
func (o Output) Idle() bool {
	return o.Lag.Samples == 0 && o.Lag.Bytes == 0 && o.Lag.GapDays == 0 && o.Lag.WholeFrom == ""
}

// Outputs asks a Varve for its outputs.
func (s *Server) Outputs(ctx context.Context) ([]Output, error) {
	var outputs []Output
	err := s.ask(ctx, http.MethodGet, "/api/v1/status/outputs", &outputs)
	return outputs, err
}
