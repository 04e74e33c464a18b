package scrape

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/scrape"
)

// Retriever tells what is scraped. Upstream's scrape manager and Merged implement it;
// it is a TargetRetriever and a ScrapePoolsRetriever of upstream's API.
type Retriever interface {
	ScrapePools() []string
	TargetsActive() map[string][]*scrape.Target
	TargetsDropped() map[string][]*scrape.Target
	TargetsDroppedCounts() map[string]int
	ScrapePoolConfig(pool string) (*config.ScrapeConfig, error)
}

// Merged is several retrievers as one. Where two have a pool of the same name, it has
// the targets of both and the configuration of the first. It may be asked from several
// goroutines if they may; the slice itself must not change.
type Merged []Retriever

// ScrapePools implements Retriever. The names are sorted and unique.
func (m Merged) ScrapePools() []string {
	var names []string
	for _, r := range m {
		names = append(names, r.ScrapePools()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TargetsActive implements Retriever.
func (m Merged) TargetsActive() map[string][]*scrape.Target {
	return m.targets(Retriever.TargetsActive)
}

// TargetsDropped implements Retriever.
func (m Merged) TargetsDropped() map[string][]*scrape.Target {
	return m.targets(Retriever.TargetsDropped)
}

func (m Merged) targets(of func(Retriever) map[string][]*scrape.Target) map[string][]*scrape.Target {
	all := make(map[string][]*scrape.Target)
	for _, r := range m {
		for pool, targets := range of(r) {
			all[pool] = append(all[pool], targets...)
		}
	}
	return all
}

// TargetsDroppedCounts implements Retriever.
func (m Merged) TargetsDroppedCounts() map[string]int {
	all := make(map[string]int)
	for _, r := range m {
		for pool, n := range r.TargetsDroppedCounts() {
			all[pool] += n
		}
	}
	return all
}

// ScrapePoolConfig implements Retriever.
func (m Merged) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	for _, r := range m {
		if c, err := r.ScrapePoolConfig(pool); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("scrape pool %q not found", pool)
}
