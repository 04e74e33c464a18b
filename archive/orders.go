package archive

import (
	"maps"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
)

// sortOrders remembers, for metrics that were asked for, the order of their series
// by labels. Labels and refs never change, so an order once known stays true and only
// grows; a query picks its series from it instead of sorting them anew, which for
// tens of thousands of series is most of what finding them costs.
type sortOrders struct {
	mu      sync.Mutex
	metrics map[string]*sortOrder
	entries int
}

type sortOrder struct {
	mu      sync.Mutex
	sel     selection
	members *roaring.Bitmap
}

// ordersMax bounds the remembered series of all metrics: 24 bytes each beside the labels.
const ordersMax = 2 << 20

func newSortOrders() *sortOrders { return &sortOrders{metrics: map[string]*sortOrder{}} }

// of returns the series of set, which are all of the metric, in the order of their labels.
func (o *sortOrders) of(cat *catalogue, metric string, set *roaring.Bitmap) (*selection, error) {
	o.mu.Lock()
	if o.entries > ordersMax {
		o.metrics, o.entries = map[string]*sortOrder{}, 0
	}
	m := o.metrics[metric]
	if m == nil {
		m = &sortOrder{members: roaring.New()}
		o.metrics[metric] = m
	}
	o.mu.Unlock()

	m.mu.Lock()
	defer m.mu.Unlock()
	missing := roaring.AndNot(set, m.members)
	if n := missing.GetCardinality(); n > 0 {
		if err := m.learn(cat, missing); err != nil {
			return nil, err
		}
		o.mu.Lock()
		o.entries += int(n)
		o.mu.Unlock()
	}
	n := int(set.GetCardinality())
	if n == len(m.sel.refs) {
		// What learn replaces it copies, so the order may be shared; what filters it may not.
		return &selection{refs: slices.Clone(m.sel.refs), labels: slices.Clone(m.sel.labels)}, nil
	}
	out := &selection{refs: make([]format.Ref, 0, n), labels: make([]labels.Labels, 0, n)}
	for i, ref := range m.sel.refs {
		if set.Contains(uint32(ref)) {
			out.refs = append(out.refs, ref)
			out.labels = append(out.labels, m.sel.labels[i])
		}
	}
	return out, nil
}

// forget forgets the orders of metrics that have one of the series.
func (o *sortOrders) forget(gone *roaring.Bitmap) {
	o.mu.Lock()
	metrics := maps.Clone(o.metrics)
	o.mu.Unlock()
	for metric, m := range metrics {
		m.mu.Lock()
		known, entries := m.members.Intersects(gone), len(m.sel.refs)
		m.mu.Unlock()
		o.mu.Lock()
		if known && o.metrics[metric] == m {
			o.entries -= entries
			delete(o.metrics, metric)
		}
		o.mu.Unlock()
	}
}

// learn merges further series into the order.
func (m *sortOrder) learn(cat *catalogue, missing *roaring.Bitmap) error {
	fresh := selection{refs: refsOf(missing)}
	var err error
	if fresh.labels, err = cat.labelsOf(fresh.refs); err != nil {
		return err
	}
	fresh.sort()
	old := m.sel
	n := len(old.refs) + len(fresh.refs)
	merged := selection{refs: make([]format.Ref, 0, n), labels: make([]labels.Labels, 0, n)}
	i, j := 0, 0
	for i < len(old.refs) || j < len(fresh.refs) {
		if j == len(fresh.refs) || i < len(old.refs) && labels.Compare(old.labels[i], fresh.labels[j]) < 0 {
			merged.refs, merged.labels = append(merged.refs, old.refs[i]), append(merged.labels, old.labels[i])
			i++
			continue
		}
		merged.refs, merged.labels = append(merged.refs, fresh.refs[j]), append(merged.labels, fresh.labels[j])
		j++
	}
	m.sel = merged
	m.members.Or(missing)
	return nil
}

func (s *selection) sort() {
	order := make([]int32, len(s.refs))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(x, y int32) int { return labels.Compare(s.labels[x], s.labels[y]) })
	refs, sets := make([]format.Ref, len(order)), make([]labels.Labels, len(order))
	for i, k := range order {
		refs[i], sets[i] = s.refs[k], s.labels[k]
	}
	s.refs, s.labels = refs, sets
}
