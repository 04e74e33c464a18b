package peer

import (
	"context"
	"net/http"
	"time"
)

// SnapshotMade is what a Varve says of a snapshot that it made.
type SnapshotMade struct {
	ID    string `json:"id"`
	Files struct {
		SnapshotTotal
		// HashedBytes were read to find the content of files; the rest was known.
		HashedBytes int64 `json:"hashedBytes"`
		// Took is without the sealing of what was due.
		Took time.Duration `json:"tookNanos"`
		// Families are by column family; "" are files that are not tables.
		Families map[string]SnapshotTotal `json:"families"`
	} `json:"files"`
	Seconds float64 `json:"seconds"`
}

// SnapshotTotal counts files; sent are those that the bucket did not have.
type SnapshotTotal struct {
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"`
	SentFiles int   `json:"sentFiles"`
	SentBytes int64 `json:"sentBytes"`
}

// CreateSnapshot has a Varve seal what is due and make a snapshot, and waits for it.
func (s *Server) CreateSnapshot(ctx context.Context) (SnapshotMade, error) {
	var made SnapshotMade
	err := s.ask(ctx, http.MethodPost, "/api/v1/admin/snapshots?wait=true", &made)
	return made, err
}
