// Package grafana replays what Grafana's Prometheus data source asks for, and compares Varve's answers with those of real
// Prometheus servers that have the same data.
//
// The calls are made as the data source makes them, learned from its source (pkg/promlib and
// packages/grafana-prometheus of Grafana 10 to 12): queries as POST forms with times as decimal seconds, ranges aligned to the
// step, resource calls by POST where the data source believes that an endpoint takes it, and again by GET after
// 405 or 400, parameters of the data source's configuration added to the URL, names of labels escaped
// for UTF-8, times in milliseconds where it mistakes them for seconds, a path before the API's, its headers.
//
// Where an answer differs from Prometheus', the difference is listed with its reason, and has to be there.
//
// The package has tests only. They run one at a time, with a Prometheus that scrapes a target of the test for some seconds and
// writes what it scraped to Varve.
package grafana
