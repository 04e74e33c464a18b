package archive

import "sync"

// genCache is a bounded cache in two generations: what was asked for since the
// last turn, and what was asked for before. When the young generation reaches half
// of the limit it becomes the old one and the old one is dropped. Safe for use by
// several goroutines. Values are shared and must not be changed.
type genCache[K comparable, V any] struct {
	size     func(V) int // bytes of an entry, key and overhead included
	bytesMax int

	mu         sync.RWMutex
	young, old map[K]V
	youngBytes int
	oldBytes   int
}

func newGenCache[K comparable, V any](bytesMax int, size func(V) int) *genCache[K, V] {
	return &genCache[K, V]{size: size, bytesMax: bytesMax, young: map[K]V{}}
}

func (c *genCache[K, V]) get(k K) (V, bool) {
	c.mu.RLock()
	v, ok := c.young[k]
	if ok {
		c.mu.RUnlock()
		return v, true
	}
	v, ok = c.old[k]
	c.mu.RUnlock()
	if ok {
		c.put(k, v)
	}
	return v, ok
}

func (c *genCache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.young[k]; ok {
		return
	}
	if c.youngBytes > c.bytesMax/2 {
		c.old, c.oldBytes = c.young, c.youngBytes
		c.young, c.youngBytes = map[K]V{}, 0
	}
	c.young[k] = v
	c.youngBytes += c.size(v)
}

func (c *genCache[K, V]) bytes() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.youngBytes + c.oldBytes
}
