package lint

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// bannedNames are words that name no thing. Each says what to write instead.
var bannedNames = map[string]string{
	"util": "", "utils": "", "common": "", "helper": "", "helpers": "", "misc": "",
	"model": "upstream's types are the model", "models": "upstream's types are the model",
	"manager": "", "managers": "", "legacy": "finish the migration and delete the loser",
}

var generations = regexp.MustCompile(`_v[0-9]+$`)

func noBannedNames(t *Tree) []Fault {
	var faults []Fault
	seen := map[string]bool{}
	for _, s := range t.Sources {
		var walked []string
		parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(s.Path, ".go"), "_test"), "/")
		for i, part := range parts {
			walked = append(walked, part)
			place := strings.Join(walked, "/")
			if i == len(parts)-1 {
				place = s.Path
			}
			if seen[place] {
				continue
			}
			seen[place] = true
			cure, banned := bannedNames[part]
			if banned && cure == "" {
				cure = "name it after the noun it holds"
			}
			if generations.MatchString(part) {
				banned, cure = true, "two generations never live side by side: name it after what differs"
			}
			if banned {
				faults = append(faults, Fault{Path: place, Text: fmt.Sprintf("%q is no name", part), Cure: cure})
			}
		}
	}
	return faults
}

// hosts are spelled in two pieces so that this file passes its own rule.
var hosts = []string{
	"proxy.golang" + ".org", "sum.golang" + ".org", "registry.npmjs" + ".org", "pypi" + ".org",
	"files.pythonhosted" + ".org", "crates" + ".io", "repo1.maven" + ".org", "deb.debian" + ".org",
	"security.debian" + ".org",
}

// outside is what no text of the repository may point at. A file without any of
// the words is not searched.
var outside = []struct {
	words      []string
	pattern    *regexp.Regexp
	text, cure string
}{
	{
		[]string{"root/", "home/", "work/", "Users/"},
		regexp.MustCompile(`(^|[^A-Za-z0-9_.~/})$-])/(root|home|work|Users)/`),
		"a path of one machine", "write it relative to the repository, or take it from a flag",
	},
	{
		[]string{"../" + "shared"},
		regexp.MustCompile(`\.\./` + `shared\b`),
		"points outside the repository", "write what the reader needs into docs/",
	},
	{
		hosts,
		regexp.MustCompile(`\b(` + strings.ReplaceAll(strings.Join(hosts, "|"), ".", `\.`) + `)\b`),
		"names a package registry's host", "use the ordinary client with its configured default",
	},
}

// scripts hold the rules' own violations.
const scripts = "internal/lint/testdata/"

func noForeignPlaces(t *Tree) []Fault {
	var faults []Fault
	for _, name := range t.paths("") {
		if strings.HasPrefix(name, scripts) || path.Base(name) == "go.sum" {
			continue
		}
		content := t.Files[name]
		for _, o := range outside {
			if !slices.ContainsFunc(o.words, func(w string) bool { return strings.Contains(content, w) }) {
				continue
			}
			for i, line := range strings.Split(content, "\n") {
				if o.pattern.MatchString(line) {
					faults = append(faults, Fault{Path: name, Line: i + 1, Text: o.text, Cure: o.cure})
				}
			}
		}
	}
	return faults
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// nothingUnfinished reads comments only, so that a string may hold such a word.
func nothingUnfinished(t *Tree) []Fault {
	const cure = "file an issue and say in whole sentences what is so and why"
	var faults []Fault
	for _, s := range t.Sources {
		for _, group := range s.File.Comments {
			for _, c := range group.List {
				if unfinished.MatchString(c.Text) {
					faults = append(faults, Fault{Path: s.Path, Line: t.line(c.Pos()), Text: "unfinished work in a comment", Cure: cure})
				}
				if looksLikeCode(c) {
					faults = append(faults, Fault{
						Path: s.Path, Line: t.line(c.Pos()), Text: "commented-out code", Cure: "delete it, version control keeps it",
					})
				}
			}
		}
	}
	for _, name := range t.paths("") {
		isScript := path.Base(name) == "Makefile" || strings.HasSuffix(name, ".sh") || name == ".ci/run"
		if !isScript {
			continue
		}
		for i, line := range slices.Collect(strings.Lines(t.Files[name])) {
			if unfinished.MatchString(line) {
				faults = append(faults, Fault{Path: name, Line: i + 1, Text: "unfinished work in a script", Cure: cure})
			}
		}
	}
	return faults
}

var statement = regexp.MustCompile(`^//\s*(if .* \{|for .* \{|return( [\w.()]+)?(, \w+)?|\w+(\.\w+)*\(.*\)|\w+(, \w+)* :?= .*\)|\}|func .*\{)$`)

// looksLikeCode takes a line of its own for code when it is a whole Go statement.
// Indented lines are examples, which godoc sets as code on purpose.
func looksLikeCode(c *ast.Comment) bool {
	return !strings.HasPrefix(c.Text, "//\t") && !strings.HasPrefix(c.Text, "//  ") && statement.MatchString(c.Text)
}
