// Package dashboards holds Grafana's dashboards, the alert rules and docs/metrics.md against what
// servers really expose.
//
// A server with all features on is driven until it shows each metric once: inputs of all kinds, a
// pair of replicas, thinning, outputs with and without a peer, snapshots, scraping, refused and
// failing requests. Every expression of dashboards and rules is then read with upstream's parser:
// a metric or a label in it that the server doesn't expose is a fault. So is an alert that has no
// test or no runbook, and a metric that docs/metrics.md doesn't have, or has otherwise. A second
// server takes days of a real node_exporter's metrics, rolls them up, and has to answer the
// dashboard of long ranges from rollups of an hour, exactly.
//
// The package has tests only, and runs Debian's promtool, node_exporter and nats-server.
package dashboards
