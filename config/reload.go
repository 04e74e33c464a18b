package config

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// Reloaded returns the configuration of a server that runs with current and has
// read next: what can change at once is next's, everything else stays. It also
// returns the keys that differ and wait for the next start, sorted.
func Reloaded(current, next *Config) (effective *Config, waiting []string) {
	c := *current
	c.Web.ConfigFile = next.Web.ConfigFile
	c.Web.Tokens = next.Web.Tokens
	c.Web.Rules = next.Web.Rules
	c.Deletes = next.Deletes
	c.Federation = next.Federation
	c.SelfScrape = next.SelfScrape
	c.Inputs, c.Outputs = next.Inputs, next.Outputs
	c.Log.Level = next.Log.Level
	c.Retention, c.RetentionSize = next.Retention, next.RetentionSize

	now, wanted := values(&c), values(next)
	for key, value := range wanted {
		if now[key] != value {
			waiting = append(waiting, key)
		}
	}
	slices.Sort(waiting)
	return &c, waiting
}

// values returns the text of every plain value by its path.
func values(c *Config) map[string]string {
	var root yaml.Node
	if err := root.Encode(c); err != nil {
		panic(err)
	}
	out := map[string]string{}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			for i := 0; i < len(n.Content); i += 2 {
				walk(join(path, n.Content[i].Value), n.Content[i+1])
			}
			return
		}
		out[path] = n.Value
	}
	walk("", &root)
	return out
}
