// Package lint turns the house rules of this repository into tests.
//
// A Rule reads a Tree, the text files of the repository in memory, and answers
// with Faults. A Fault names the place, what is wrong there and the cure, so that
// whoever meets one needs no second document. The rules look at what can be
// decided from text and syntax alone: which package imports which, whether a
// package explains itself, whether a test sleeps, whether a link leads somewhere.
// Types and data flow are left to vet and staticcheck, which `make check` runs
// beside these tests.
//
// Each rule has a script in testdata that holds a small tree breaking it and the
// faults that must come out; a rule without a script fails the tests, so that a
// rule that went blind is noticed.
//
// Nothing here is safe for concurrent use, and nothing outside tests imports it.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// modulePath is the path under which packages of this repository are imported.
const modulePath = "varve"

// Fault is one place that breaks a rule.
type Fault struct {
	Path string
	// Line counts from 1. Zero: the fault is of the whole file or folder.
	Line int
	// Text says what is wrong, Cure what to do instead.
	Text, Cure string
}

// String formats the fault the way compilers do, so that editors can jump to it.
func (f Fault) String() string {
	place := f.Path
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	return fmt.Sprintf("%s: %s; %s", place, f.Text, f.Cure)
}

// Rule is one house rule.
type Rule struct {
	// Name is that of the rule's script in testdata, without its ending.
	Name  string
	Check func(*Tree) []Fault
}

// Rules are all house rules that text and syntax can decide.
var Rules = []Rule{
	{"arrows", importArrows},
	{"foreign", foreignImports},
	{"comments", packageComments},
	{"tests", testsSayWhatTheyShow},
	{"sleep", noSleepInTests},
	{"leaks", goroutinesAreCounted},
	{"fuzz", decodersAreFuzzed},
	{"errors", errorsNameTheOperation},
	{"format", gofmtClean},
	{"length", filesStayShort},
	{"names", noBannedNames},
	{"text", noForeignPlaces},
	{"unfinished", nothingUnfinished},
	{"links", linksResolve},
	{"makefile", targetsDocumented},
}

// Source is one parsed Go file.
type Source struct {
	Path string
	File *ast.File
}

// IsTest says whether the file is compiled for tests only.
func (s *Source) IsTest() bool { return strings.HasSuffix(s.Path, "_test.go") }

// Folder is the file's folder, "." for the root.
func (s *Source) Folder() string { return path.Dir(s.Path) }

// Tree is the repository's text files.
type Tree struct {
	// Files maps slash-separated paths to contents.
	Files map[string]string
	// Sources are the Go files outside testdata, sorted by path.
	Sources []*Source
	// Broken are Go files that do not parse.
	Broken []Fault

	positions *token.FileSet
}

// Load reads the tree at the root of fsys. It leaves out what .gitignore names as
// a folder at the root, the version control's own folder, packages of npm, binary files, and the
// inputs that fuzzing and property tests found (their text is a machine's).
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{Files: map[string]string{}, positions: token.NewFileSet()}
	skipped := append(ignoredFolders(fsys), ".git")
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != "." {
			return nil // It went since its folder was listed: an editor's, or one of another test.
		}
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(skipped, name) || path.Base(name) == "node_modules" || strings.HasSuffix(name, "testdata/fuzz") || strings.HasSuffix(name, "testdata/rapid") {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if isText(content) {
			t.Files[name] = string(content)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	t.parse()
	return t, nil
}

// parse fills Sources and Broken.
func (t *Tree) parse() {
	for _, name := range t.paths(".go") {
		if inTestdata(name) {
			continue
		}
		file, err := parser.ParseFile(t.positions, name, t.Files[name], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Broken = append(t.Broken, Fault{Path: name, Text: "does not parse: " + err.Error(), Cure: "make it compile"})
			continue
		}
		t.Sources = append(t.Sources, &Source{Path: name, File: file})
	}
}

// paths are the files with the ending, sorted.
func (t *Tree) paths(ending string) []string {
	var names []string
	for name := range t.Files {
		if strings.HasSuffix(name, ending) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// line is the line of a position in one of the sources.
func (t *Tree) line(p token.Pos) int { return t.positions.Position(p).Line }

// folders groups the sources by folder, in order of the folders' names.
func (t *Tree) folders() []folder {
	var all []folder
	for _, s := range t.Sources {
		i := slices.IndexFunc(all, func(f folder) bool { return f.name == s.Folder() })
		if i < 0 {
			i, all = len(all), append(all, folder{name: s.Folder()})
		}
		all[i].sources = append(all[i].sources, s)
	}
	slices.SortFunc(all, func(a, b folder) int { return cmp.Compare(a.name, b.name) })
	return all
}

// folder is the Go files of one folder: a package, its tests and its external tests.
type folder struct {
	name    string
	sources []*Source
}

// isCommand says whether the folder builds a program.
func (f folder) isCommand() bool {
	return slices.ContainsFunc(f.sources, func(s *Source) bool { return s.File.Name.Name == "main" })
}

func inTestdata(name string) bool {
	return slices.Contains(strings.Split(path.Dir(name), "/"), "testdata")
}

// isText takes a file for text when its beginning has no NUL byte, as git does.
func isText(content []byte) bool {
	const looked = 8000
	return !slices.Contains(content[:min(len(content), looked)], 0)
}

// ignoredFolders are the entries of .gitignore of the form /name/.
func ignoredFolders(fsys fs.FS) []string {
	content, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil {
		return nil
	}
	var names []string
	for entry := range strings.Lines(string(content)) {
		entry = strings.TrimSpace(entry)
		if strings.HasPrefix(entry, "/") && strings.HasSuffix(entry, "/") && !strings.Contains(entry, "*") {
			names = append(names, strings.Trim(entry, "/"))
		}
	}
	return names
}
