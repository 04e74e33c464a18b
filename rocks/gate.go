package rocks

import "sync/atomic"

// gate counts the calls that are inside the engine, so that Close can wait for
// them. Unlike a read lock it may be entered again by a goroutine that is inside
// already, also while another one waits in shut.
//
// Invariants: bit 62 of state says that the gate is shut, the bits below are the
// number of calls inside. A call that finds the gate shut leaves again without
// touching the engine. The gate is drained when state is exactly shutBit.
type gate struct {
	state   atomic.Int64
	drained chan struct{}
}

const shutBit = 1 << 62

func newGate() *gate { return &gate{drained: make(chan struct{}, 1)} }

// enter reports whether the caller may use the engine; if so it must leave.
func (g *gate) enter() bool {
	if g.state.Add(1)&shutBit != 0 {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.state.Add(-1) == shutBit {
		g.signal()
	}
}

func (g *gate) signal() {
	select {
	case g.drained <- struct{}{}:
	default:
	}
}

// shut keeps further calls out and waits for those inside. It reports false when
// the gate was shut before.
func (g *gate) shut(beforeWaiting func()) bool {
	for {
		s := g.state.Load()
		if s&shutBit != 0 {
			return false
		}
		if g.state.CompareAndSwap(s, s|shutBit) {
			beforeWaiting()
			if s == 0 {
				return true
			}
			<-g.drained
			return true
		}
	}
}
