package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// arrow says which packages of ours the packages of a folder may import.
//
// A name ending in /... stands for the folder and all below it.
type arrow struct {
	from string
	to   []string
	// instead is the right way for whoever wants to import something else.
	instead string
}

// arrows are looked up by the longest matching name. A package that no entry
// covers is a fault: a new package is a decision about layers, made here.
var arrows = []arrow{
	{"rocks", []string{"durable"}, "rocks is the bottom and knows no metrics: hand it bytes"},
	{"arrival", nil, "arrival is a leaf that inputs and the archive both import: keep it data only"},
	{"digest", nil, "digest is arithmetic over samples that the archive and imports share"},
	{"bucket", []string{"durable"}, "bucket opens object storage and knows nothing of what lies in it"},
	{"snapshot", []string{"bucket", "durable"}, "snapshot moves files: what makes a checkpoint and opens a restored one are funcs in its Options that cmd/varve fills"},
	{"intake", []string{"digest", "durable"}, "intake declares its source and target as interfaces; cmd/varve joins them"},
	{"intake/direct", []string{"intake", "digest", "arrival", "archive", "archive/format"}, "the target that is an archive in this process"},
	{"intake/...", []string{"intake", "digest", "bucket"}, "sources and targets know intake's interfaces and not each other"},
	{"export/...", []string{"export/...", "rollup", "bucket", "digest", "durable"}, "export takes upstream's storage interfaces; cmd/varve fills them"},
	{"rollup", nil, "rollup is arithmetic that the archive and the planner share: hand it samples and rows"},
	{"archive", []string{"rocks", "arrival", "rollup", "digest", "durable", "archive/format", "archive/chunk"}, "declare an interface or a func field in archive's Options and let cmd/varve fill it"},
	{"archive/format", []string{"arrival"}, "format is bytes in, bytes out: pass what it needs as arguments"},
	{"archive/chunk", []string{"rollup", "archive/format", "archive/chunk/ints"}, "chunk is a pure codec: pass what it needs as arguments"},
	{"archive/chunk/ints", nil, "ints is a pure codec of numbers and knows nothing of what they mean"},
	{"compactor", []string{"archive", "archive/format"}, "the compactor plans and calls the archive's methods; it reads no record itself"},
	{"forward", []string{"archive", "arrival", "durable"}, "the forwarder reads cursors and knows no protocol: senders are made by cmd/varve"},
	{"forward/lineprotocol", nil, "line protocol is bytes in, bytes out"},
	{"forward/writerequest", []string{"forward"}, "the encoding of write requests knows no peer"},
	{"forward/payload", nil, "a leaf that senders share"},
	{"natsconn", nil, "natsconn is how NATS is connected to, for the input and the output"},
	{"jsonwalk", nil, "jsonwalk is bytes in, tokens out"},
	{"durable", nil, "durable syncs files and knows nothing of what is in them"},
	{"forward/...", []string{"forward", "forward/lineprotocol", "forward/writerequest", "forward/payload", "natsconn"}, "senders never import each other: what two of them need is a package of its own"},
	{"ingest", []string{"arrival"}, "declare a sink interface in ingest and let cmd/varve join it to the archive"},
	{"ingest/...", []string{"arrival", "ingest", "natsconn", "jsonwalk", "durable"}, "inputs never import each other or the archive: declare a sink interface"},
	{"query", []string{"rollup"}, "query declares its source as an interface; cmd/varve joins it to the archive"},
	{"api/...", []string{"query", "api/...", "export/..."}, "api takes upstream's storage interfaces and small interfaces of its own; cmd/varve fills them"},
	{"packaging/grafana/generate", nil, "the generator of dashboards knows names of metrics and nothing else"},
	{"api/ui", nil, "ui is files and the handler that serves them"},
	{"canary", []string{"arrival"}, "canary declares what it writes to and reads from as interfaces; cmd/varve joins them"},
	{"config", nil, "config is read by cmd/varve alone, which turns it into each package's Options"},
	{"cmd/varve", []string{"rocks", "arrival", "rollup", "archive/...", "ingest/...", "query", "compactor", "forward/...", "api/...", "config", "natsconn", "digest", "durable", "bucket", "snapshot", "intake/...", "export/...", "canary"}, "a program wires packages; test kits and benchmarks stay outside it"},
	{"benchmarks/...", []string{"benchmarks/...", "internal/gate/..."}, "a benchmark drives programs from outside, through their public ports"},
	{"internal/gate/...", []string{"internal/gate/..."}, "a gate drives the built program from outside; what it needs to see belongs into an HTTP answer or a verb"},
	{"internal/testkit", []string{"archive", "forward", "ingest", "arrival", "rocks", "internal/testkit/..."}, "the kit opens archives for tests of the layers above; a kit for another layer is another package"},
	{"internal/testkit/draws", nil, "it knows rapid and no package of ours"},
	{"internal/testkit/leaks", nil, "it knows goroutines and no package of ours"},
	{"internal/testkit/race", nil, "it knows how a test was built and no package of ours"},
	{"internal/lint", nil, "the house rules read text and nothing else"},
}

// testArrows are what tests may import beyond their package's own arrows. Tests
// of a layer may stand on the layers below it, never reach up into a command.
var testArrows = []arrow{
	{"query", []string{"archive/...", "rocks", "arrival"}, ""},
	{"api/...", []string{"archive/...", "rocks", "arrival", "rollup"}, ""},
	{"ingest/...", []string{"ingest/...", "archive/...", "rocks"}, ""},
	{"archive/...", []string{"rocks", "archive/...", "arrival"}, ""},
	{"forward/...", []string{"forward/...", "ingest/...", "archive/...", "arrival", "rocks"}, ""},
	{"compactor", []string{"rocks", "archive/...", "arrival"}, ""},
	{"intake/...", []string{"intake/...", "archive/...", "rocks", "arrival", "digest"}, ""},
	{"export/...", []string{"export/...", "archive/...", "rocks", "arrival", "digest"}, ""},
	{"snapshot", []string{"bucket", "archive/...", "rocks", "arrival", "digest"}, ""},
	{"benchmarks/codec", []string{"archive/format", "archive/chunk", "rollup"}, ""},
}

func importArrows(t *Tree) []Fault {
	faults := slices.Clone(t.Broken)
	for _, f := range t.folders() {
		allowed, known := arrowFrom(arrows, f.name)
		if !known {
			faults = append(faults, Fault{
				Path: f.name, Text: "package has no place among the layers",
				Cure: "add it to the table in internal/lint/arrows.go with the packages it may import, and to docs/ARCHITECTURE.md",
			})
			continue
		}
		for _, s := range f.sources {
			faults = append(faults, t.crossings(s, f.name, allowed)...)
		}
	}
	return faults
}

// crossings are the imports of a file that no arrow allows.
func (t *Tree) crossings(s *Source, from string, allowed arrow) []Fault {
	var faults []Fault
	for _, spec := range s.File.Imports {
		to, ours := strings.CutPrefix(importPath(spec.Path.Value), modulePath+"/")
		if !ours || covers(allowed.to, to) {
			continue
		}
		if s.IsTest() {
			extra, _ := arrowFrom(testArrows, from)
			if to == from || covers(extra.to, to) || strings.HasPrefix(to, "internal/") {
				continue
			}
		}
		faults = append(faults, Fault{
			Path: s.Path, Line: t.line(spec.Pos()),
			Text: fmt.Sprintf("%s may not import %s", from, to),
			Cure: allowed.instead,
		})
	}
	return faults
}

// arrowFrom finds the most exact entry for a folder.
func arrowFrom(table []arrow, folder string) (arrow, bool) {
	var best arrow
	found := false
	for _, a := range table {
		if covers([]string{a.from}, folder) && (!found || len(a.from) > len(best.from) || a.from == folder) {
			best, found = a, true
			if a.from == folder {
				break
			}
		}
	}
	return best, found
}

// covers says whether one of the names stands for the folder.
func covers(names []string, folder string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		root, deep := strings.CutSuffix(name, "/...")
		return folder == root || deep && strings.HasPrefix(folder, root+"/")
	})
}

// foreign says which folders alone may import a package that is not ours.
type foreign struct {
	prefix  string
	only    []string
	except  []string
	instead string
}

// noLogger are the layers that hand errors up instead of logging them.
var noLogger = []string{"rocks", "arrival", "archive/..."}

var foreigns = []foreign{
	{prefix: "C", only: []string{"rocks"}, instead: "cgo lives in rocks alone: add what you need to its Go API"},
	{prefix: "github.com/linxGnu/grocksdb", only: []string{"rocks"}, instead: "use package rocks, which owns and counts all C memory"},
	{prefix: "github.com/alecthomas/kingpin/v2", only: []string{"cmd/...", "benchmarks/..."}, instead: "take an Options struct; flags belong to programs"},
	{prefix: "gopkg.in/yaml.v3", only: []string{"config", "api/access", "cmd/...", "internal/gate/...", "benchmarks/..."}, instead: "take an Options struct; the file format belongs to config"},
	{prefix: "log", except: noLogger, instead: "return the error, or give rare events to an injected struct of functions"},
	{prefix: "log/slog", except: noLogger, instead: "return the error, or give rare events to an injected struct of functions"},
}

func foreignImports(t *Tree) []Fault {
	var faults []Fault
	for _, s := range t.Sources {
		for _, spec := range s.File.Imports {
			imported := importPath(spec.Path.Value)
			for _, f := range foreigns {
				if imported != f.prefix {
					continue
				}
				barred := f.only != nil && !covers(f.only, s.Folder()) || covers(f.except, s.Folder()) && !s.IsTest()
				if barred {
					faults = append(faults, Fault{
						Path: s.Path, Line: t.line(spec.Pos()),
						Text: fmt.Sprintf("%s may not import %q", s.Folder(), imported), Cure: f.instead,
					})
				}
			}
		}
	}
	return faults
}

// importPath unquotes an import's literal, which the parser has checked.
func importPath(literal string) string {
	p, err := strconv.Unquote(literal)
	if err != nil {
		return literal
	}
	return p
}
