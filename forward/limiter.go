package forward

import (
	"context"
	"math"

	"golang.org/x/time/rate"
)

// limiter keeps a rate, in units a second. The zero rate is none. Safe for use by several goroutines.
type limiter struct {
	rate  *rate.Limiter
	burst int
}

// newLimiter lets through burst at once, and at least what comes in a second.
func newLimiter(perSecond float64, burst int) *limiter {
	if perSecond <= 0 {
		return &limiter{}
	}
	burst = max(burst, int(min(math.Ceil(perSecond), math.MaxInt32)))
	return &limiter{rate.NewLimiter(rate.Limit(perSecond), burst), burst}
}

// wait returns when n may pass.
func (l *limiter) wait(ctx context.Context, n int) error {
	for l.rate != nil && n > 0 {
		part := min(n, l.burst)
		if err := l.rate.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return ctx.Err()
}
