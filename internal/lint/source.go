package lint

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// Bounds of a package comment: shorter says nothing, longer belongs into docs.
const (
	packageCommentLinesMin = 5
	packageCommentLinesMax = 40
)

func packageComments(t *Tree) []Fault {
	const cure = "say purpose, nouns, concurrency and what it does not do, right above the package clause"
	var faults []Fault
	for _, f := range t.folders() {
		// An external test package speaks for the package that it tests.
		own := slices.DeleteFunc(slices.Clone(f.sources), func(s *Source) bool {
			return strings.HasSuffix(s.File.Name.Name, "_test")
		})
		if len(own) == 0 {
			own = f.sources
		}
		documented := slices.DeleteFunc(slices.Clone(own), func(s *Source) bool { return s.File.Doc == nil })
		switch {
		case len(documented) == 0:
			faults = append(faults, Fault{Path: f.name, Text: "package has no comment", Cure: cure})
		case len(documented) > 1:
			faults = append(faults, Fault{
				Path: documented[1].Path, Line: t.line(documented[1].File.Doc.Pos()),
				Text: "package has a second comment, the first is in " + documented[0].Path, Cure: "keep one of them",
			})
		default:
			s := documented[0]
			lines := t.line(s.File.Doc.End()) - t.line(s.File.Doc.Pos()) + 1
			if lines < packageCommentLinesMin || lines > packageCommentLinesMax {
				faults = append(faults, Fault{
					Path: s.Path, Line: t.line(s.File.Doc.Pos()),
					Text: fmt.Sprintf("package comment has %d lines, not %d to %d", lines, packageCommentLinesMin, packageCommentLinesMax), Cure: cure,
				})
			}
		}
		for _, s := range own {
			faults = append(faults, t.detachedComment(s)...)
		}
	}
	return faults
}

// detachedComment finds a package comment that a blank line cuts off from its
// clause, so that godoc drops it.
func (t *Tree) detachedComment(s *Source) []Fault {
	if s.File.Doc != nil {
		return nil
	}
	for _, group := range s.File.Comments {
		if group.End() < s.File.Package && strings.HasPrefix(group.Text(), "Package ") {
			return []Fault{{
				Path: s.Path, Line: t.line(group.Pos()),
				Text: "package comment is cut off from its package clause", Cure: "remove the blank line between them",
			}}
		}
	}
	return nil
}

var testNames = regexp.MustCompile(`^(Test|Fuzz)([A-Z_]|$)`)

func testsSayWhatTheyShow(t *Tree) []Fault {
	var faults []Fault
	for _, s := range t.Sources {
		if !s.IsTest() {
			continue
		}
		for _, d := range s.File.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Name.Name == "TestMain" || !testNames.MatchString(f.Name.Name) {
				continue
			}
			if f.Doc == nil && !t.opensWithComment(s, f) {
				faults = append(faults, Fault{
					Path: s.Path, Line: t.line(f.Pos()), Text: f.Name.Name + " does not say what it shows",
					Cure: "say it in a comment above the function, and how if that is not plain",
				})
			}
		}
	}
	return faults
}

// opensWithComment says whether the first thing in a function's body is a comment.
func (t *Tree) opensWithComment(s *Source, f *ast.FuncDecl) bool {
	first := f.Body.Rbrace
	if len(f.Body.List) > 0 {
		first = f.Body.List[0].Pos()
	}
	return slices.ContainsFunc(s.File.Comments, func(g *ast.CommentGroup) bool {
		return g.Pos() > f.Body.Lbrace && g.Pos() < first
	})
}

func noSleepInTests(t *Tree) []Fault {
	const cure = "wait for the thing itself: a channel, a condition, an injected clock or testing/synctest"
	var faults []Fault
	for _, s := range t.Sources {
		if !s.IsTest() {
			continue
		}
		// A receive beside other cases of a select limits a wait; alone it is a nap.
		limits := map[ast.Stmt]bool{}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectStmt:
				for _, c := range n.Body.List {
					limits[c.(*ast.CommClause).Comm] = len(n.Body.List) > 1
				}
			case *ast.CallExpr:
				if isTimeCall(n, "Sleep") {
					faults = append(faults, Fault{Path: s.Path, Line: t.line(n.Pos()), Text: "a test sleeps", Cure: cure})
				}
			case ast.Stmt:
				if receivesFromAfter(n) && !limits[n] {
					faults = append(faults, Fault{Path: s.Path, Line: t.line(n.Pos()), Text: "a test sleeps by time.After", Cure: cure})
				}
			}
			return true
		})
	}
	return faults
}

// receivesFromAfter says whether a statement does nothing but wait for time.After.
func receivesFromAfter(s ast.Stmt) bool {
	var received ast.Expr
	switch s := s.(type) {
	case *ast.ExprStmt:
		received = s.X
	case *ast.AssignStmt:
		if len(s.Rhs) == 1 {
			received = s.Rhs[0]
		}
	}
	unary, ok := received.(*ast.UnaryExpr)
	if !ok || unary.Op != token.ARROW {
		return false
	}
	call, ok := unary.X.(*ast.CallExpr)
	return ok && isTimeCall(call, "After")
}

func isTimeCall(call *ast.CallExpr, name string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	return ok && pkg.Name == "time"
}

// kits are folders whose goroutines are counted by the tests and programs that use them.
var kits = []string{"internal/...", "benchmarks/..."}

func goroutinesAreCounted(t *Tree) []Fault {
	var faults []Fault
	for _, f := range t.folders() {
		var started *Fault
		counted := false
		for _, s := range f.sources {
			if s.IsTest() {
				counted = counted || countsGoroutines(s.File)
				continue
			}
			ast.Inspect(s.File, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok && started == nil {
					started = &Fault{
						Path: s.Path, Line: t.line(g.Pos()), Text: "package starts goroutines and no test of it counts them",
						Cure: "add a TestMain with goleak.VerifyTestMain or testkit.Main",
					}
				}
				return true
			})
		}
		// A program ends with its goroutines.
		if started != nil && !counted && !f.isCommand() && !covers(kits, f.name) {
			faults = append(faults, *started)
		}
	}
	return faults
}

// countsGoroutines tells whether a file of tests uses goleak, or the kit's TestMain that does.
func countsGoroutines(file *ast.File) bool {
	if slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return importPath(i.Path.Value) == "go.uber.org/goleak" }) {
		return true
	}
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Main" {
			pkg, ok := s.X.(*ast.Ident)
			found = found || ok && pkg.Name == "testkit"
		}
		return !found
	})
	return found
}

var decoderNames = regexp.MustCompile(`^(Decode|Parse|Unmarshal|Load)([A-Z]|$)`)

// notFuzzed are folders whose decoders need no fuzzing.
var notFuzzed = []string{
	"rocks",          // the engine checks its bytes itself
	"benchmarks/...", // reads what it wrote
	"internal/...",   // reads this repository and its own servers
}

func decodersAreFuzzed(t *Tree) []Fault {
	var faults []Fault
	for _, f := range t.folders() {
		if covers(notFuzzed, f.name) || f.isCommand() {
			continue
		}
		var decoder *Fault
		fuzzed := false
		for _, s := range f.sources {
			for _, d := range s.File.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name := fn.Name.Name
				if s.IsTest() {
					fuzzed = fuzzed || strings.HasPrefix(name, "Fuzz")
				} else if decoder == nil && decoderNames.MatchString(name) && takesBytes(fn) {
					decoder = &Fault{
						Path: s.Path, Line: t.line(fn.Pos()), Text: name + " decodes foreign bytes in a package without a fuzz target",
						Cure: "add a Fuzz function: what was encoded decodes to itself, garbage gives an error and never a panic",
					}
				}
			}
		}
		if decoder != nil && !fuzzed {
			faults = append(faults, *decoder)
		}
	}
	return faults
}

// takesBytes says whether a function has a []byte or an io.Reader among its parameters.
func takesBytes(f *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		switch t := p.Type.(type) {
		case *ast.ArrayType:
			element, ok := t.Elt.(*ast.Ident)
			return t.Len == nil && ok && element.Name == "byte"
		case *ast.SelectorExpr:
			pkg, ok := t.X.(*ast.Ident)
			return ok && pkg.Name == "io" && t.Sel.Name == "Reader"
		}
		return false
	})
}

var vagueErrors = regexp.MustCompile(`(?i)^["` + "`" + `](failed|unable|error|could not|couldn't)\b`)

func errorsNameTheOperation(t *Tree) []Fault {
	var faults []Fault
	for _, s := range t.Sources {
		if s.IsTest() {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || selector.Sel.Name != "Errorf" && selector.Sel.Name != "New" {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok || pkg.Name != "fmt" && pkg.Name != "errors" {
				return true
			}
			if text, ok := call.Args[0].(*ast.BasicLit); ok && vagueErrors.MatchString(text.Value) {
				faults = append(faults, Fault{
					Path: s.Path, Line: t.line(call.Pos()), Text: "error begins with " + text.Value,
					Cure: `name the operation alone, as in "open archive: %w"`,
				})
			}
			return true
		})
	}
	return faults
}

func gofmtClean(t *Tree) []Fault {
	var faults []Fault
	for _, s := range t.Sources {
		formatted, err := format.Source([]byte(t.Files[s.Path]))
		if err != nil || string(formatted) != t.Files[s.Path] {
			faults = append(faults, Fault{Path: s.Path, Text: "not formatted", Cure: "run make fmt"})
		}
	}
	return faults
}

// Limits on lines. A file beyond its limit usually holds two nouns. Functions
// should stay within 60 lines; twice that is where a review has nothing to weigh.
const (
	sourceLinesMax   = 600
	testLinesMax     = 900
	functionLinesMax = 120
)

// longFiles are files allowed beyond the limit, with the reason.
var longFiles = map[string]string{}

func filesStayShort(t *Tree) []Fault {
	var faults []Fault
	for _, s := range t.Sources {
		linesMax := sourceLinesMax
		if s.IsTest() {
			linesMax = testLinesMax
		}
		faults = append(faults, t.longFunctions(s)...)
		lines := strings.Count(t.Files[s.Path], "\n")
		_, allowed := longFiles[s.Path]
		switch {
		case lines > linesMax && !allowed && !ast.IsGenerated(s.File):
			faults = append(faults, Fault{
				Path: s.Path, Text: fmt.Sprintf("%d lines, more than %d", lines, linesMax),
				Cure: "split it by noun, or give the reason in longFiles of internal/lint/source.go",
			})
		case lines <= linesMax && allowed:
			faults = append(faults, Fault{Path: s.Path, Text: "is short again", Cure: "take it out of longFiles in internal/lint/source.go"})
		}
	}
	for name := range longFiles {
		if _, ok := t.Files[name]; !ok && t.Files["go.mod"] != "" {
			faults = append(faults, Fault{Path: name, Text: "does not exist", Cure: "take it out of longFiles in internal/lint/source.go"})
		}
	}
	return faults
}

func (t *Tree) longFunctions(s *Source) []Fault {
	var faults []Fault
	for _, d := range s.File.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || s.IsTest() {
			continue
		}
		if lines := t.line(f.End()) - t.line(f.Pos()) + 1; lines > functionLinesMax {
			faults = append(faults, Fault{
				Path: s.Path, Line: t.line(f.Pos()), Text: fmt.Sprintf("%s has %d lines, more than %d", f.Name.Name, lines, functionLinesMax),
				Cure: "split it by step",
			})
		}
	}
	return faults
}
