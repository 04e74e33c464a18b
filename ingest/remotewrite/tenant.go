package remotewrite

import (
	"encoding/binary"
	"net/http"
	"strings"

	"varve/arrival"
	"varve/ingest"
)

// tenant is whom a request names as the owner of its series. The zero tenant is nobody.
type tenant struct {
	// label is the name of its label, empty for nobody.
	label, value string
	// series is the seed of the keys of label bytes of 1.0: the same bytes of another tenant
	// are another series.
	series arrival.Seed
}

// tenantHeaders are where senders name a tenant: Cortex and its heirs, and the README of
// OpenTelemetry's Python exporter.
var tenantHeaders = [...]string{"X-Scope-Orgid", "X-Scope-Org-Id"}

// tenantOf returns the tenant that the headers name, if there is a label for it.
func (p *pool) tenantOf(h http.Header) tenant {
	if p.o.TenantLabel == "" {
		return tenant{}
	}
	for _, name := range tenantHeaders {
		if values := h[name]; len(values) > 0 && values[0] != "" {
			// The header lives on in nothing that is remembered: labels are copied.
			return tenant{label: p.o.TenantLabel, value: strings.TrimSpace(values[0])}
		}
	}
	return tenant{}
}

// setTenant makes the keys of the request those of a tenant.
func (q *request) setTenant(t tenant) {
	q.tenant, q.table.tenant = t, arrival.Key{}
	if t.label == "" {
		q.tenant.series = q.seeds.series
		return
	}
	name := append([]byte("remote write tenant "), t.label...)
	name = binary.AppendUvarint(append(name, 0), uint64(len(t.value)))
	q.table.tenant = q.seeds.symbol.Hash(append(name, t.value...))
	q.tenant.series = arrival.Seed(q.seeds.series.Hash(append(name, t.value...)).Lo)
}

// add adds the tenant's label to a set.
func (t *tenant) add(sets *ingest.LabelSets) {
	if t.label != "" {
		sets.Add(t.label, t.value)
	}
}
