package main

import (
	"fmt"

	"varve/api/access"
	"varve/config"
)

// newPolicy returns who may do what under c, reading the web configuration file.
func newPolicy(c *config.Config) (*access.Policy, error) {
	o := access.PolicyOptions{}
	if c.Web.ConfigFile != "" {
		file, err := access.ReadWebFile(c.Web.ConfigFile)
		if err != nil {
			return nil, err
		}
		o.WebFile = file
	}
	for _, t := range c.Web.Tokens {
		o.Tokens = append(o.Tokens, access.Token{Name: t.Name, Secret: t.Token.Reveal()})
	}
	for _, r := range c.Web.Rules {
		rule := access.Rule{Who: r.Who}
		for _, name := range r.May {
			g, err := access.ParseGroup(name)
			if err != nil {
				return nil, err
			}
			rule.May = append(rule.May, g)
		}
		o.Rules = append(o.Rules, rule)
	}
	p, err := access.NewPolicy(o)
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	return p, nil
}
