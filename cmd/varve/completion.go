package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// addCompletion gives the parser scripts for bash and zsh in place of its own, which don't complete
// the value in --flag=value, and zsh's nothing at its first call; and adds one for fish. As the
// parser's own flags of this kind it is for whoever makes packages, and stands in no help. end ends
// the parser with an exit code.
func addCompletion(app *kingpin.Application, stdout io.Writer, end func(int)) {
	kingpin.BashCompletionTemplate = bashCompletion
	kingpin.ZshCompletionTemplate = zshCompletion
	app.Flag("completion-script-fish", "Generate completion script for fish.").Hidden().
		PreAction(func(*kingpin.ParseContext) error {
			if _, err := io.WriteString(stdout, fishCompletion(app.Model())); err != nil {
				return err
			}
			end(0)
			return nil
		}).Bool()
}

// bashCompletion asks the program what may follow the words so far. Where it has no proposal the
// names of files are completed.
const bashCompletion = `# Completion of varve for bash.

_varve() {
    local current="${COMP_WORDS[COMP_CWORD]}" word proposals
    local -a words=()
    # An equals sign is a word of its own to readline.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        [ "$word" = "=" ] || words+=("$word")
    done
    if [ "$current" = "=" ]; then
        current=
        words+=("")
    fi
    proposals=$("${COMP_WORDS[0]/#\~/$HOME}" --completion-bash "${words[@]}" 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$proposals" -- "$current")
}
complete -o default -F _varve varve
`

// zshCompletion does the same for zsh, whether it is sourced or found by its name.
const zshCompletion = `#compdef varve
# Completion of varve for zsh.

_varve() {
    local -a asked proposals
    local current=${words[CURRENT]}
    asked=("${(@)words[2,CURRENT-1]}")
    if [[ $current == --*=* ]]; then
        asked+=("${current%%=*}" "${current#*=}")
        compset -P '*='
    else
        asked+=("$current")
    fi
    proposals=(${(f)"$(${~words[1]} --completion-bash "${(@)asked}" 2>/dev/null)"})
    compadd -a proposals
    if [[ $compstate[nmatches] -eq 0 && $PREFIX != -* ]]; then
        _files
    fi
}

if [[ ${funcstack[1]} == _varve ]]; then
    _varve "$@"
else
    compdef _varve varve
fi
`

// fishHead has what conditions and values need: the words before the cursor that are no flags.
const fishHead = `# Completion of varve for fish.

function __varve_verbs
    set -l words (commandline -opc)
    set -e words[1]
    string match -v -- '-*' $words
end

# The words so far are these and nothing else: a verb may follow.
function __varve_at
    set -l verbs (__varve_verbs)
    test "$verbs" = "$argv"
end

# The words so far begin with these: a flag of the verb may follow.
function __varve_in
    set -l verbs (__varve_verbs)
    test (count $verbs) -ge (count $argv); and test "$verbs[1..$(count $argv)]" = "$argv"
end

# What the program itself proposes as the value of a flag.
function __varve_values
    set -l words (commandline -opc)
    set -e words[1]
    varve --completion-bash $words $argv[1] '' 2>/dev/null
end

complete -c varve -f
`

// fishCompletion returns the script: a line for each verb, flag and argument. Values that
// aren't files are asked of the program.
func fishCompletion(app *kingpin.ApplicationModel) string {
	var b strings.Builder
	b.WriteString(fishHead)
	fishFlags(&b, "", app.Flags)
	fishVerbs(&b, "", app.Commands)
	return b.String()
}

// fishVerbs writes the verbs that may follow the words so far, and all below them.
func fishVerbs(b *strings.Builder, path string, verbs []*kingpin.CmdModel) {
	at := fishQuote(strings.TrimSpace("__varve_at " + path))
	for _, cmd := range verbs {
		if cmd.Hidden {
			continue
		}
		fmt.Fprintf(b, "complete -c varve -n %s -a %s -d %s\n", at, cmd.Name, fishQuote(firstSentence(cmd.Help)))
		below := strings.TrimSpace(path + " " + cmd.Name)
		in := " -n " + fishQuote("__varve_in "+below)
		fishFlags(b, in, cmd.Flags)
		if len(cmd.Args) > 0 {
			fmt.Fprintf(b, "complete -c varve%s -F\n", in)
		}
		fishVerbs(b, below, cmd.Commands)
	}
}

func fishFlags(b *strings.Builder, condition string, flags []*kingpin.FlagModel) {
	for _, flag := range flags {
		if flag.Hidden {
			continue
		}
		description := fishQuote(firstSentence(flag.Help))
		short := ""
		if flag.Short != 0 {
			short = fmt.Sprintf(" -s %c", flag.Short)
		}
		switch {
		case flag.IsBoolFlag():
			fmt.Fprintf(b, "complete -c varve%s%s -l %s -d %s\n", condition, short, flag.Name, description)
		case namesFile(flag):
			fmt.Fprintf(b, "complete -c varve%s%s -l %s -rF -d %s\n", condition, short, flag.Name, description)
		default:
			fmt.Fprintf(b, "complete -c varve%s%s -l %s -x -a '(__varve_values --%s)' -d %s\n", condition, short, flag.Name, flag.Name, description)
		}
	}
}

// namesFile says whether a flag's value is the name of a file or a folder, which its
// placeholder or its own name tells.
func namesFile(flag *kingpin.FlagModel) bool {
	switch flag.PlaceHolder {
	case "FILE", "DIR":
		return true
	}
	for _, end := range []string{"file", "dir", "path", "scratch", "output"} {
		if strings.HasSuffix(flag.Name, end) {
			return true
		}
	}
	return false
}

// firstSentence is what fits beside a proposal.
func firstSentence(help string) string {
	for _, end := range []string{". ", ": ", "; "} {
		help, _, _ = strings.Cut(help, end)
	}
	return strings.TrimSuffix(help, ".")
}

// fishQuote quotes for fish: between single quotes, only those and backslashes are special.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
