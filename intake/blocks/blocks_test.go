package blocks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"varve/intake"
	"varve/intake/blocks"
)

var begin = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).UnixMilli()

const hour = int64(3_600_000)

type samples map[string]map[int64]float64

// read reads all days of a source, as the engine does: a day anew where it is told to.
func read(t testing.TB, s intake.Source) samples {
	t.Helper()
	out := samples{}
	mint, maxt, ok := s.Span()
	for start := intake.DayStart(mint); ok && start <= maxt; start += intake.DayMillis {
		got, err := readDay(t, s, start)
		for errors.Is(err, intake.ErrReadAgain) {
			got, err = readDay(t, s, start)
		}
		require.NoError(t, err)
		for name, of := range got {
			if out[name] == nil {
				out[name] = map[int64]float64{}
			}
			maps.Copy(out[name], of)
		}
	}
	return out
}

func readDay(t testing.TB, s intake.Source, start int64) (samples, error) {
	d, err := s.OpenDay(t.Context(), start)
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(t, d.Close()) }()
	out := samples{}
	err = d.Series(t.Context(), func(ls labels.Labels, handle uint64) error {
		all, err := d.Chunks(t.Context(), handle, nil)
		if err != nil {
			return err
		}
		for _, c := range all {
			for it := c.Chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
				if at, v := it.At(); at >= start && at < start+intake.DayMillis {
					if out[ls.String()] == nil {
						out[ls.String()] = map[int64]float64{}
					}
					out[ls.String()][at] = v
				}
			}
		}
		return nil
	})
	return out, err
}

// makeBlock makes a block of one sample a minute in [from, to), and returns its folder.
func makeBlock(t testing.TB, dir string, from, to int64, value float64, sets ...labels.Labels) (path string, want samples) {
	t.Helper()
	want = samples{}
	var series []storage.Series
	for _, ls := range sets {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		want[ls.String()] = map[int64]float64{}
		for at := from; at < to; at += 60_000 {
			app.Append(0, at, value+float64(at%7))
			want[ls.String()][at] = value + float64(at%7)
		}
		series = append(series, &storage.SeriesEntry{Lset: ls, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return c.Iterator(nil) }})
	}
	path, err := tsdb.CreateBlock(series, dir, 2*(to-from), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return path, want
}

// editMeta changes a block's meta.json.
func editMeta(t testing.TB, path string, edit func(map[string]any)) {
	t.Helper()
	name := filepath.Join(path, "meta.json")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	m := map[string]any{}
	require.NoError(t, json.Unmarshal(b, &m))
	edit(m)
	b, err = json.Marshal(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

func set(i int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i))
}

func open(t testing.TB, dirs []string, o blocks.Options) intake.Source {
	t.Helper()
	o.Scratch = filepath.Join(t.TempDir(), "scratch")
	s, err := blocks.Open(t.Context(), dirs, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		left, err := os.ReadDir(o.Scratch)
		require.NoError(t, err)
		require.Empty(t, left, "scratch")
	})
	return s
}

// TestDays shows that a block of several days gives each day its samples, that one given twice counts once, and that selections apply.
func TestDays(t *testing.T) {
	dir := t.TempDir()
	path, want := makeBlock(t, dir, begin+hour, begin+60*hour, 1, set(1), set(2))
	require.Equal(t, want, read(t, open(t, []string{dir, path}, blocks.Options{})))
	s := open(t, []string{path}, blocks.Options{Match: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "i", "2")}, {labels.MustNewMatcher(labels.MatchEqual, "i", "7")}}})
	delete(want, set(1).String())
	require.Equal(t, want, read(t, s))
	n, bytes := s.Size()
	require.EqualValues(t, 2*59*60, n)
	require.NotZero(t, bytes)
	require.NotEqual(t, s.Identity(begin), open(t, []string{path}, blocks.Options{}).Identity(begin))
}

// TestOverlap shows that of blocks with samples at equal times the later made one comes last.
func TestOverlap(t *testing.T) {
	dir := t.TempDir()
	_, want := makeBlock(t, dir, begin, begin+4*hour, 1, set(1))
	second, over := makeBlock(t, dir, begin+2*hour, begin+6*hour, 100, set(1))
	// Names are made of the time, which may be the same: this one is later.
	later := filepath.Join(dir, "7ZZZZZZZZZ0000000000000000")
	require.NoError(t, os.Rename(second, later))
	editMeta(t, later, func(m map[string]any) { m["ulid"] = filepath.Base(later) })
	maps.Copy(want[set(1).String()], over[set(1).String()])
	require.Equal(t, want, read(t, open(t, []string{dir}, blocks.Options{})))
}

// TestSuperseded shows that a block whose sources are a part of another one's is passed over, as is a parent, but not a shard.
func TestSuperseded(t *testing.T) {
	dir := t.TempDir()
	whole, want := makeBlock(t, dir, begin, begin+4*hour, 1, set(1))
	part, _ := makeBlock(t, dir, begin+hour, begin+2*hour, 50, set(2))
	parent, _ := makeBlock(t, dir, begin, begin+4*hour, 70, set(3))
	shard, more := makeBlock(t, dir, begin, begin+4*hour, 90, set(4))
	id := func(path string) string { return filepath.Base(path) }
	all := []string{id(whole), id(part)}
	editMeta(t, whole, func(m map[string]any) {
		m["compaction"] = map[string]any{"level": 2, "sources": all, "parents": []any{map[string]any{"ulid": id(parent)}}}
	})
	for _, path := range []string{parent, shard} {
		editMeta(t, path, func(m map[string]any) { m["compaction"] = map[string]any{"level": 2, "sources": all} })
	}
	maps.Copy(want, more)
	require.Equal(t, want, read(t, open(t, []string{dir}, blocks.Options{})))
}

func withThanos(t testing.TB, path string, resolution int64, external map[string]string) {
	editMeta(t, path, func(m map[string]any) {
		m["thanos"] = map[string]any{"labels": external, "downsample": map[string]any{"resolution": resolution}}
	})
}

// TestBucket shows that blocks of a bucket are downloaded for their days and removed behind them, with their external labels; that those marked for
// deletion and half uploaded ones are passed over; and that scratch is bounded.
func TestBucket(t *testing.T) {
	dir, bucket := t.TempDir(), objstore.NewInMemBucket()
	want := samples{}
	upload := func(path string) {
		require.NoError(t, filepath.WalkDir(path, func(name string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, name)
			require.NoError(t, err)
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			return bucket.Upload(t.Context(), "blocks/"+filepath.ToSlash(rel), strings.NewReader(string(b)))
		}))
	}
	for i := range int64(3) {
		path, got := makeBlock(t, dir, begin+i*24*hour, begin+(i+1)*24*hour, 1, set(1))
		withThanos(t, path, 0, map[string]string{"cluster": "eu", "i": "over"})
		upload(path)
		for _, of := range got {
			name := labels.FromStrings(model.MetricNameLabel, "m", "i", "over", "cluster", "eu").String()
			if want[name] == nil {
				want[name] = map[int64]float64{}
			}
			maps.Copy(want[name], of)
		}
	}
	gone, _ := makeBlock(t, dir, begin, begin+24*hour, 9, set(9))
	upload(gone)
	require.NoError(t, bucket.Upload(t.Context(), "blocks/"+filepath.Base(gone)+"/deletion-mark.json", strings.NewReader("{}")))
	half, _ := makeBlock(t, dir, begin, begin+24*hour, 9, set(9))
	require.NoError(t, os.Remove(filepath.Join(half, "meta.json")))
	upload(half)
	s := open(t, []string{"blocks"}, blocks.Options{Bucket: bucket, ScratchBytesMax: 20_000})
	require.Equal(t, want, read(t, s))
	require.Len(t, s.(*blocks.Source).Skipped(), 1)
	require.Equal(t, want, read(t, open(t, []string{"blocks"}, blocks.Options{Bucket: bucket, Match: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "i", "over")}}})))
	require.Empty(t, read(t, open(t, []string{"blocks"}, blocks.Options{Bucket: bucket, Match: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "i", "1")}}})))
	small := open(t, []string{"blocks"}, blocks.Options{Bucket: bucket, ScratchBytesMax: 100})
	_, err := small.OpenDay(t.Context(), begin)
	require.ErrorContains(t, err, "allow more")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = open(t, []string{"blocks"}, blocks.Options{Bucket: bucket}).OpenDay(ctx, begin)
	require.ErrorIs(t, err, context.Canceled)
}

// TestDownsampled shows that aggregates are refused, and passed over if asked for.
func TestDownsampled(t *testing.T) {
	dir := t.TempDir()
	path, _ := makeBlock(t, dir, begin, begin+hour, 1, set(1))
	withThanos(t, path, 300_000, map[string]string{"a": "b"})
	_, err := blocks.Open(t.Context(), []string{dir}, blocks.Options{Scratch: t.TempDir()})
	require.ErrorIs(t, err, blocks.ErrDownsampled)
	require.ErrorContains(t, err, filepath.Base(path))
	require.Empty(t, read(t, open(t, []string{dir}, blocks.Options{SkipDownsampled: true})))
}

// TestBroken shows that a broken block is an error that names it, whatever is broken, and that others can be had without it.
func TestBroken(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"meta":      func(p string) error { return os.WriteFile(filepath.Join(p, "meta.json"), []byte("{"), 0o600) },
		"no meta":   func(p string) error { return os.Remove(filepath.Join(p, "meta.json")) },
		"index":     func(p string) error { return os.Truncate(filepath.Join(p, "index"), 100) },
		"no index":  func(p string) error { return os.Remove(filepath.Join(p, "index")) },
		"no chunks": func(p string) error { return os.RemoveAll(filepath.Join(p, "chunks")) },
		"a bit": func(p string) error {
			file := filepath.Join(p, "chunks", "000001")
			b, err := os.ReadFile(file)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(file, b, 0o600)
			}
			return err
		},
		"series": func(p string) error {
			file := filepath.Join(p, "index")
			b, err := os.ReadFile(file)
			if err == nil {
				b[64+5] ^= 0xff
				err = os.WriteFile(file, b, 0o600)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, _ := makeBlock(t, dir, begin, begin+4*hour, 1, set(1))
			_, want := makeBlock(t, dir, begin, begin+4*hour, 1, set(2))
			require.NoError(t, harm(path))
			s, err := blocks.Open(t.Context(), []string{dir}, blocks.Options{Scratch: t.TempDir()})
			if err == nil {
				_, err = readDay(t, s, begin)
				require.NoError(t, s.Close())
			}
			require.ErrorContains(t, err, filepath.Base(path))
			require.NotErrorIs(t, err, intake.ErrReadAgain)
			s = open(t, []string{dir}, blocks.Options{SkipBroken: true})
			require.Equal(t, want, read(t, s))
			require.Len(t, s.(*blocks.Source).Skipped(), 1)
			before := open(t, []string{dir}, blocks.Options{SkipBroken: true})
			if name != "meta" && name != "no meta" {
				require.NotEqual(t, before.Identity(begin), s.Identity(begin), "a day without a block isn't done for good")
			}
		})
	}
}

// TestPromtool shows that the blocks of Prometheus' own tool, of Debian's version and of 3.15 where it was built, are read: sample by sample.
func TestPromtool(t *testing.T) {
	found := 0
	for _, tool := range promtools() {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("SKIPPED: %s is not there", filepath.Base(filepath.Dir(tool)))
			continue
		}
		found++
		dir, want := t.TempDir(), samples{}
		var text strings.Builder
		text.WriteString("# HELP m some\n# TYPE m gauge\n")
		for i := range 200 {
			at := begin + int64(i)*hour/2
			fmt.Fprintf(&text, "m{i=\"%d\"} %d %d.%03d\n", i%3, i, at/1000, at%1000)
			name := set(i % 3).String()
			if want[name] == nil {
				want[name] = map[int64]float64{}
			}
			want[name][at] = float64(i)
		}
		text.WriteString("# EOF\n")
		input, output := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		require.NoError(t, os.WriteFile(input, []byte(text.String()), 0o600))
		told, err := exec.CommandContext(t.Context(), tool, "tsdb", "create-blocks-from", "openmetrics", input, output).CombinedOutput()
		require.NoError(t, err, string(told))
		require.Equal(t, want, read(t, open(t, []string{output}, blocks.Options{})))
	}
	if found == 0 {
		t.Skip("SKIPPED: there is no promtool on this machine")
	}
}

func promtools() []string {
	out := []string{"promtool"}
	if cache, err := os.UserCacheDir(); err == nil {
		more, err := filepath.Glob(filepath.Join(cache, "varve-peers", "prometheus-3*", "promtool"))
		if err == nil {
			out = append(out, more...)
		}
	}
	return out
}

// TestEmpty shows that a folder without blocks has no span, and that one that isn't there is an error.
func TestEmpty(t *testing.T) {
	_, _, ok := open(t, []string{t.TempDir()}, blocks.Options{}).Span()
	require.False(t, ok)
	_, err := blocks.Open(t.Context(), []string{filepath.Join(t.TempDir(), "none")}, blocks.Options{Scratch: t.TempDir()})
	require.ErrorIs(t, err, os.ErrNotExist)
}
