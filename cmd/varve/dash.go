package main

import (
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// passDashes makes arguments of which kingpin takes a lone "-", which stands for standard input and output, for what it is: kingpin hands
// it on as an empty text. As the value of a flag it is joined to it, elsewhere it comes last, behind "--".
func passDashes(app *kingpin.Application, args []string) []string {
	valued := map[string]bool{}
	model := app.Model()
	noteValued(valued, model.Flags)
	for _, c := range model.FlattenedCommands() {
		noteValued(valued, c.Flags)
	}
	var out, last []string
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(append(out, args[i:]...), last...)
		case arg != "-":
			out = append(out, arg)
		case i > 0 && strings.HasPrefix(args[i-1], "--") && valued[args[i-1][2:]]:
			out[len(out)-1] += "=-"
		default:
			last = append(last, arg)
		}
	}
	if last != nil {
		out = append(append(out, "--"), last...)
	}
	return out
}

func noteValued(valued map[string]bool, flags []*kingpin.FlagModel) {
	for _, f := range flags {
		if !f.IsBoolFlag() {
			valued[f.Name] = true
		}
	}
}
