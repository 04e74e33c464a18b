package ingest

import (
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// firstAppender offers an appender under upstream's first interface,
// storage.Appender. Where that interface asks for a synthetic zero sample at a
// start timestamp, the timestamp is kept beside the sample that follows instead:
// the archive stores start timestamps, and a zero that nobody measured would
// differ from what the other inputs store.
type firstAppender struct {
	*appender
	rejectOutOfOrder bool
	// start is what AppendSTZeroSample announced for the series' next sample.
	start struct {
		ref         storage.SeriesRef
		t, stMillis int64
	}
}

var _ storage.Appender = (*firstAppender)(nil)

// Append implements storage.Appender.
func (a *firstAppender) Append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	return a.append(ref, ls, t, v, nil, nil)
}

// AppendHistogram implements storage.HistogramAppender.
func (a *firstAppender) AppendHistogram(ref storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return a.append(ref, ls, t, 0, h, fh)
}

func (a *firstAppender) append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	st := int64(0)
	if a.start.stMillis != 0 {
		row, err := a.row(ref, ls)
		if err != nil {
			return 0, err
		}
		if a.series[row].ref == a.start.ref && t == a.start.t {
			st, a.start.stMillis = a.start.stMillis, 0
		}
	}
	return a.appender.Append(ref, ls, st, t, v, h, fh, storage.AppendV2Options{RejectOutOfOrder: a.rejectOutOfOrder})
}

// AppendSTZeroSample implements storage.StartTimestampAppender.
func (a *firstAppender) AppendSTZeroSample(ref storage.SeriesRef, ls labels.Labels, t, st int64) (storage.SeriesRef, error) {
	if st >= t {
		return 0, storage.ErrSTNewerThanSample
	}
	row, err := a.row(ref, ls)
	if err != nil {
		return 0, err
	}
	a.start.ref, a.start.t, a.start.stMillis = a.series[row].ref, t, st
	return a.start.ref, nil
}

// AppendHistogramSTZeroSample implements storage.HistogramAppender.
func (a *firstAppender) AppendHistogramSTZeroSample(ref storage.SeriesRef, ls labels.Labels, t, st int64, _ *histogram.Histogram, _ *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return a.AppendSTZeroSample(ref, ls, t, st)
}

// AppendExemplar implements storage.ExemplarAppender.
func (a *firstAppender) AppendExemplar(ref storage.SeriesRef, ls labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	row, err := a.row(ref, ls)
	if err != nil {
		return 0, err
	}
	return a.series[row].ref, a.exemplar(row, e.Ts, e)
}

// UpdateMetadata implements storage.MetadataUpdater. The family is the metric's name.
func (a *firstAppender) UpdateMetadata(ref storage.SeriesRef, ls labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	row, err := a.row(ref, ls)
	if err != nil {
		return 0, err
	}
	return a.series[row].ref, a.metadata(a.series[row].labels, "", m)
}

// SetOptions implements storage.Appender.
func (a *firstAppender) SetOptions(opts *storage.AppendOptions) {
	a.rejectOutOfOrder = opts != nil && opts.DiscardOutOfOrder
}
