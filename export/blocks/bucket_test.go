package blocks

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"
)

// refusing is a bucket whose n-th change fails.
type refusing struct {
	objstore.Bucket
	left *int
}

var errRefused = errors.New("503 slow down")

func (b refusing) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if *b.left--; *b.left < 0 {
		return errRefused
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func objects(t testing.TB, b objstore.Bucket) map[string][]string {
	out := map[string][]string{}
	require.NoError(t, b.Iter(t.Context(), "", func(name string) error {
		folder, rest, _ := strings.Cut(name, "/")
		out[folder] = append(out[folder], rest)
		return nil
	}, objstore.WithRecursiveIter()))
	return out
}

// TestBucketResumes shows that whichever upload fails, a rerun with the same options leaves each block once and whole, and
// meta.json is the last of it that comes; and that a block which was removed since, as by a compactor, doesn't come again.
func TestBucketResumes(t *testing.T) {
	s := filled(t)
	b := objstore.NewInMemBucket()
	for n := 0; ; n++ {
		left := n
		place, err := NewBucket(refusing{b, &left}, t.TempDir())
		require.NoError(t, err)
		o := options(t, s, t.TempDir())
		o.Place = place
		report, err := Run(t.Context(), o)
		for folder, names := range objects(t, b) {
			if folder+"/" != notesFolder && len(names) < 3 {
				require.NotContains(t, names, metaName)
			}
		}
		if err != nil {
			require.ErrorIs(t, err, errRefused)
			require.ErrorContains(t, err, "block from")
			continue
		}
		require.Len(t, report.Blocks, 3)
		break
	}
	found := objects(t, b)
	require.Len(t, found, 4)
	for folder, names := range found {
		if folder+"/" == notesFolder {
			require.Len(t, names, 3)
			continue
		}
		require.ElementsMatch(t, []string{"chunks/000001", indexName, metaName}, names)
		for _, name := range names {
			require.NoError(t, b.Delete(t.Context(), folder+"/"+name))
		}
	}
	place, err := NewBucket(b, t.TempDir())
	require.NoError(t, err)
	o := options(t, s, t.TempDir())
	o.Place = place
	_, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, objects(t, b), 1)
}

// meddled is a bucket in which somebody removes the chunks of a block when its index comes.
type meddled struct{ objstore.Bucket }

func (b meddled) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if folder, rest, _ := strings.Cut(name, "/"); rest == indexName {
		if err := b.Delete(ctx, folder+"/chunks/000001"); err != nil {
			return err
		}
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

// TestBucketMeddled shows that a block of which another process removed a file, since it makes the same one, never gets the meta.json
// by which it would count.
func TestBucketMeddled(t *testing.T) {
	s := filled(t)
	b := objstore.NewInMemBucket()
	place, err := NewBucket(meddled{b}, t.TempDir())
	require.NoError(t, err)
	o := options(t, s, t.TempDir())
	o.Place = place
	_, err = Run(t.Context(), o)
	require.ErrorContains(t, err, "another process exports the same")
	for _, names := range objects(t, b) {
		require.NotContains(t, names, metaName)
	}
}
