package api

// Served is a path of the routing table.
type Served struct {
	Path, Group string
	Methods     []string
}

// Served lists the routing table.
func (a *API) Served() (all []Served) {
	for _, s := range a.served {
		all = append(all, Served{s.path, s.group, s.methods})
	}
	return all
}
