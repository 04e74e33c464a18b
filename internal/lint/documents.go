package lint

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	fence   = regexp.MustCompile("^ *(```|~~~)")
	inline  = regexp.MustCompile("`[^`]*`")
)

func linksResolve(t *Tree) []Fault {
	var faults []Fault
	for _, name := range t.paths(".md") {
		if inTestdata(name) {
			continue
		}
		for number, line := range prose(t.Files[name]) {
			for _, match := range link.FindAllStringSubmatch(inline.ReplaceAllString(line, ""), -1) {
				if text := t.brokenLink(name, match[1]); text != "" {
					faults = append(faults, Fault{Path: name, Line: number + 1, Text: text, Cure: "point it at a file of the repository, relative to the page"})
				}
			}
		}
	}
	return faults
}

// brokenLink says what is wrong with a link on a page, "" if nothing is. Links to
// other hosts are not followed.
func (t *Tree) brokenLink(page, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(target, "#")
	aim := page
	if file != "" {
		aim = path.Join(path.Dir(page), file)
	}
	if strings.HasPrefix(aim, "..") || strings.HasPrefix(file, "/") {
		return fmt.Sprintf("link %q leaves the repository", target)
	}
	if !t.has(aim) {
		return fmt.Sprintf("link %q leads nowhere", target)
	}
	if anchor != "" && strings.HasSuffix(aim, ".md") && !slices.Contains(anchors(t.Files[aim]), anchor) {
		return fmt.Sprintf("link %q names no heading there", target)
	}
	return ""
}

// has says whether a file or a folder of that name exists.
func (t *Tree) has(name string) bool {
	if _, ok := t.Files[name]; ok {
		return true
	}
	for file := range t.Files {
		if strings.HasPrefix(file, strings.TrimSuffix(name, "/")+"/") {
			return true
		}
	}
	return false
}

// prose is the lines of a page with those inside code fences emptied.
func prose(page string) []string {
	lines := strings.Split(page, "\n")
	fenced := false
	for i, line := range lines {
		mark := fence.MatchString(line)
		if mark || fenced {
			lines[i] = ""
		}
		if mark {
			fenced = !fenced
		}
	}
	return lines
}

// anchors are the headings of a page as links name them: lower case, blanks as
// hyphens, punctuation dropped.
func anchors(page string) []string {
	var all []string
	for _, line := range prose(page) {
		match := heading.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1]))
	}
	return all
}

var target = regexp.MustCompile(`^([a-z][a-z0-9-]*):([^=]|$)`)

// targetsDocumented looks for targets that `make help` would not list. Names of
// files that are built (with a slash or a dot) are not for people and need none.
func targetsDocumented(t *Tree) []Fault {
	var faults []Fault
	for _, name := range t.paths("Makefile") {
		phony := map[string]bool{}
		for _, line := range strings.Split(strings.ReplaceAll(t.Files[name], "\\\n", " "), "\n") {
			if names, ok := strings.CutPrefix(line, ".PHONY:"); ok {
				for _, n := range strings.Fields(names) {
					phony[n] = true
				}
			}
		}
		for i, line := range strings.Split(t.Files[name], "\n") {
			match := target.FindStringSubmatch(line)
			if match == nil {
				continue
			}
			if !strings.Contains(line, " ## ") {
				faults = append(faults, Fault{Path: name, Line: i + 1, Text: match[1] + " is not documented", Cure: "end the line with ## and a sentence, which make help prints"})
			}
			if !phony[match[1]] {
				faults = append(faults, Fault{Path: name, Line: i + 1, Text: match[1] + " is not declared phony", Cure: "add it to .PHONY, or a file of that name would silence it"})
			}
		}
	}
	return faults
}
