package access

import "time"

// SetClock makes the allowance for wrong credentials grow by another clock.
func (g *Guard) SetClock(now func() time.Time) { g.verifier.now = now }
