package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
)

// helpFlags finds flags at the begin of lines of --help-long.
var helpFlags = regexp.MustCompile(`(?m)^ +(?:-h, )?(--(?:\[no-\])?[a-z.-]+)(?:=| {2})`)

func TestManualHasEveryFlag(t *testing.T) {
	// Whatever --help-long lists, the manual page has, escaped: verbs as headings, flags as such.
	code, help, _ := invoke(t, "--help-long")
	require.Zero(t, code)
	code, page, stderr := invoke(t, "--help-man")
	require.Zero(t, code, stderr)
	found := helpFlags.FindAllStringSubmatch(help, -1)
	require.Greater(t, len(found), 50)
	for _, flag := range found {
		require.True(t, strings.Contains(page, strings.ReplaceAll(flag[1], "-", `\-`)+`\fR`), "the page lacks %s", flag[1])
	}
	verbs := regexp.MustCompile(`(?m)^([a-z-]+(?: [a-z-]+)?)(?: [\[<-].*)?\n    \S`).FindAllStringSubmatch(help, -1)
	require.Greater(t, len(verbs), 15)
	for _, verb := range verbs {
		require.True(t, strings.Contains(page, `.SS "varve `+strings.ReplaceAll(verb[1], "-", `\-`)+`"`), "the page lacks %s", verb[1])
	}
}

func TestManualEscapes(t *testing.T) {
	// No help text can be a request of roff, and what is copied from the page is what was written.
	app := kingpin.New("varve", "")
	verb := app.Command("verb", ".so /etc/passwd\n.br")
	verb.Flag("flag", `'quoted \fB and --dashed ~^`+"`").PlaceHolder(".X").String()
	verb.Arg("name", ".ex").Required().Strings()
	page := manual(app.Model())
	require.Contains(t, page, "\n\\&.so /etc/passwd .br\n")
	require.Contains(t, page, "\n\\&'quoted \\efB and \\-\\-dashed \\(ti\\(ha\\(ga\n")
	require.Contains(t, page, "\\fB\\-\\-flag\\fR=\\fI\\&.X\\fR")
	require.Contains(t, page, "\n<name>...\n")
	require.Contains(t, page, "\n\\&.ex\n")
}

func TestFishCompletion(t *testing.T) {
	// Proposals of a verb below another hold there alone, names of files are completed where a flag
	// or an argument is one, and no text leaves its quotes.
	app := kingpin.New("varve", "")
	verb := app.Command("above", "It's above: really.").Command("below", `Ends with \`)
	verb.Flag("data", "Where.").PlaceHolder("DIR").String()
	verb.Flag("kind", "What. And more.").Enum("a", "b")
	verb.Flag("quiet", "Whether.").Short('q').Bool()
	verb.Arg("name", "").String()
	script := fishCompletion(app.Model())
	for _, line := range []string{
		`complete -c varve -n '__varve_at' -a above -d 'It\'s above'`,
		`complete -c varve -n '__varve_at above' -a below -d 'Ends with \\'`,
		`complete -c varve -n '__varve_in above below' -l data -rF -d 'Where'`,
		`complete -c varve -n '__varve_in above below' -l kind -x -a '(__varve_values --kind)' -d 'What'`,
		`complete -c varve -n '__varve_in above below' -s q -l quiet -d 'Whether'`,
		`complete -c varve -n '__varve_in above below' -F`,
	} {
		require.Contains(t, script, line+"\n")
	}
}

func TestCompletionScripts(t *testing.T) {
	// Each shell's script ends the program with 0 and is about varve; the gate of packages runs them in the shells.
	for flag, line := range map[string]string{
		"--completion-script-bash": "complete -o default -F _varve varve\n",
		"--completion-script-zsh":  "#compdef varve\n",
		"--completion-script-fish": "complete -c varve -n '__varve_at check' -a data",
	} {
		code, stdout, stderr := invoke(t, flag)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, line)
		require.Empty(t, stderr)
	}
}
