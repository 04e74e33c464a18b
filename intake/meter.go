package intake

import (
	"sync"
	"time"
)

// progressEvery is how often progress is told within a phase.
const progressEvery = 200 * time.Millisecond

// meter counts progress. It is safe for several goroutines.
type meter struct {
	mu     sync.Mutex
	now    Progress
	tell   func(Progress)
	began  time.Time
	told   time.Time
	before uint64 // samples of earlier runs, which say nothing of the rate
	day    uint64 // samples of the day under way
}

func (m *meter) init(tell func(Progress)) { m.tell, m.began = tell, time.Now() }

// skip counts a day that is done.
func (m *meter) skip(samples uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Days++
	m.now.Samples += samples
	m.before += samples
}

func (m *meter) phase(name string, start int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Phase, m.now.Day = name, DayName(start)
	m.report(true)
}

func (m *meter) add(samples uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Samples += samples
	m.day += samples
	m.report(false)
}

// takeBack forgets what was counted of the day under way.
func (m *meter) takeBack() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Samples -= m.day
	m.day = 0
}

func (m *meter) dayDone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Days++
	m.day = 0
	m.report(true)
}

// report tells, with mu held.
func (m *meter) report(always bool) {
	now := time.Now()
	if m.tell == nil || !always && now.Sub(m.told) < progressEvery {
		return
	}
	m.told = now
	p := m.now
	p.Elapsed = now.Sub(m.began)
	if seconds := p.Elapsed.Seconds(); seconds > 0 {
		p.SamplesPerSecond = float64(p.Samples-m.before) / seconds
	}
	m.tell(p)
}
