package config

// Canary configures the writer and reader of known values.
type Canary struct {
	Enabled  bool     `yaml:"enabled"`
	Interval Duration `yaml:"interval"`
}

func (v *validator) checkCanary(c *Canary) {
	within(v, "canary.interval", c.Interval, second, 60*minute)
	if c.Interval > 0 && day%c.Interval != 0 {
		v.mistake("canary.interval", "%v is no part of a day: use one such as 30s, 1m or 5m", c.Interval)
	}
}
