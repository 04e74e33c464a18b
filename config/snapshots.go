package config

import "os"

// Snapshots configures copies of the archive in object storage.
type Snapshots struct {
	// ObjstoreConfigFile is in the form that Thanos and Mimir share. Empty: no snapshots.
	ObjstoreConfigFile string `yaml:"objstore_config_file"`
	// Every of zero makes none but those that are asked for; Offset is counted from 1970-01-01T00:00 UTC.
	Every  Duration      `yaml:"every"`
	Offset Duration      `yaml:"offset"`
	Keep   KeepSnapshots `yaml:"keep"`
	// Parallel counts files that are sent at once, MaxUploadRate is in bytes a second, 0 for any.
	Parallel      int  `yaml:"parallel"`
	MaxUploadRate Size `yaml:"max_upload_rate"`
	// CPUShare is the part of the time that hashing may take of one core.
	CPUShare float64 `yaml:"cpu_share"`
}

// KeepSnapshots says which snapshots are not removed. All zero: none ever is.
type KeepSnapshots struct {
	Last    int `yaml:"last"`
	Daily   int `yaml:"daily"`
	Weekly  int `yaml:"weekly"`
	Monthly int `yaml:"monthly"`
	Yearly  int `yaml:"yearly"`
}

func (v *validator) checkSnapshots(s *Snapshots) {
	if s.ObjstoreConfigFile != "" {
		s.ObjstoreConfigFile = v.resolve(s.ObjstoreConfigFile)
		if info, err := os.Stat(s.ObjstoreConfigFile); err != nil || info.IsDir() {
			v.mistake("snapshots.objstore_config_file", "%s is not a file that can be read", s.ObjstoreConfigFile)
		}
	} else if s.Every != 0 {
		v.mistake("snapshots.every", "there is no objstore_config_file that says where snapshots go")
	}
	if s.Every != 0 {
		within(v, "snapshots.every", s.Every, 10*minute, 366*day)
		within(v, "snapshots.offset", s.Offset, 0, s.Every)
	}
	const most = 10_000
	within(v, "snapshots.keep.last", s.Keep.Last, 0, most)
	within(v, "snapshots.keep.daily", s.Keep.Daily, 0, most)
	within(v, "snapshots.keep.weekly", s.Keep.Weekly, 0, most)
	within(v, "snapshots.keep.monthly", s.Keep.Monthly, 0, most)
	within(v, "snapshots.keep.yearly", s.Keep.Yearly, 0, most)
	within(v, "snapshots.parallel", s.Parallel, 1, 64)
	within(v, "snapshots.max_upload_rate", s.MaxUploadRate, 0, tib)
	within(v, "snapshots.cpu_share", s.CPUShare, 0.01, 1)
}

// LookBack makes the configuration one of a server that only answers queries, over the archive at path: nothing
// comes in, goes out or expires, and nothing is kept of the server itself.
func (c *Config) LookBack(path string) {
	c.Storage.Path = path
	c.Inputs = usualInputs()
	for i := range c.Inputs {
		c.Inputs[i].Disabled = true
	}
	c.Outputs, c.Retention, c.RetentionSize = nil, nil, 0
	c.Snapshots = Default().Snapshots
	c.SelfScrape.Enabled, c.Canary.Enabled = false, false
}
