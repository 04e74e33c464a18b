package packages_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

func TestManualPageRenders(t *testing.T) {
	// Neither mandoc nor groff has anything to say against the page, and what is read on it can be copied to a command line.
	page := filepath.Join(t.TempDir(), "varve.1")
	require.NoError(t, os.WriteFile(page, []byte(output(t, server.Binary(t, ""), "--help-man")), 0o600))
	for _, renderer := range []struct {
		name string
		args []string
	}{
		{"mandoc", []string{"-T", "lint", "-W", "warning", page}},
		{"man", []string{"--warnings", "--encoding=UTF-8", "--local-file", page}},
	} {
		t.Run(renderer.name, func(t *testing.T) {
			need(t, renderer.name)
			cmd := exec.Command(renderer.name, renderer.args...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100", "MAN_KEEP_FORMATTING=")
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			require.NoError(t, err, "%s%s", out, errs.String())
			require.Empty(t, errs.String())
			if renderer.name == "man" {
				require.Contains(t, string(out), "--storage.path=data")
				require.Contains(t, string(out), "varve check config varve.yml")
			} else {
				require.Empty(t, string(out))
			}
		})
	}
}

// completions are command lines with the cursor at the end, and what has to be proposed among others.
// proposed as a file are names of the folder that the shell runs in.
var completions = []struct{ line, proposed string }{
	{"varve se", "serve seal"},
	{"varve check ", "config data server"},
	{"varve serve --log", "--log.level --log.format"},
	{"varve import in", "influx"},
	{"varve export csv --time ", "rfc3339 unix_s"},
	{"varve export csv --time=", "rfc3339 unix_s"},
	{"varve check config an", "anything.yml"},
	{"varve serve --config.file an", "anything.yml"},
}

// complete has a shell run a script for each completion: $line and $index hold the command line and the place of the last word.
func complete(t *testing.T, shell []string, script, flag string) {
	t.Helper()
	need(t, shell[0])
	dir := t.TempDir()
	require.NoError(t, os.Symlink(server.Binary(t, ""), filepath.Join(dir, "varve")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "anything.yml"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "_varve"), []byte(output(t, server.Binary(t, ""), flag)), 0o600))
	for _, c := range completions {
		cmd := exec.Command(shell[0], append(shell[1:len(shell):len(shell)], script)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "line="+c.line, "TERM=dumb")
		out := strings.Fields(outputOf(t, cmd))
		for proposed := range strings.FieldsSeq(c.proposed) {
			require.Contains(t, out, proposed, "%q in %s", c.line, shell[0])
		}
	}
}

func TestCompletionBash(t *testing.T) {
	// What bash calls when the tabulator is pressed proposes verbs, flags, values, also behind an equals sign, and files.
	complete(t, []string{"bash", "--norc", "-c"}, `
		source ./_varve
		spec=$(complete -p varve)
		[[ $spec == *"-F _varve"* && $spec == *"-o default"* ]]
		read -ra COMP_WORDS <<<"${line/=/ = }"
		[[ $line != *" " && $line != *"=" ]] || COMP_WORDS+=("")
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		_varve
		# As readline does where a function proposes nothing.
		[ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
		printf '%s\n' "${COMPREPLY[@]}"`, "--completion-script-bash")
}

func TestCompletionZsh(t *testing.T) {
	// The function that zsh finds by its name proposes the same at its first call. zsh's own functions are replaced by ones that print.
	complete(t, []string{"zsh", "-f", "-c"}, `
		fpath=($PWD $fpath)
		compset() { PREFIX=${PREFIX#*=}; }
		compadd() { local m; for m in ${(P)2}; do [[ $m == $PREFIX* ]] && { print -r -- $m; ((compstate[nmatches]++)); }; done; }
		_files() { print -rl -- $PREFIX*(N); }
		compdef() { :; }
		autoload -Uz _varve
		typeset -A compstate=(nmatches 0)
		words=(${=line})
		[[ $line == *" " ]] && words+=("")
		CURRENT=$#words
		PREFIX=$words[CURRENT]
		_varve
		true`, "--completion-script-zsh")
}

func TestCompletionFish(t *testing.T) {
	// fish proposes the same, each with a word on what it is.
	complete(t, []string{"fish", "--no-config", "-c"}, `
		source ./_varve
		complete -C $line | string replace -r '^--time=' ''; true`, "--completion-script-fish")
}
