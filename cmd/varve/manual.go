package main

import (
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// addManual makes --help-man print the manual page, from the verbs and flags that the parser
// knows. The parser's own template lacks what a page of section 1 has, and escapes nothing.
func addManual(app *kingpin.Application) {
	kingpin.ManPageTemplate = `{{ .App | Manual }}`
	app.UsageFuncs(template.FuncMap{"Manual": manual})
}

// manualHead and manualTail are what flags can't tell, in roff's man macros.
const (
	manualHead = `.SH NAME
varve \- keep Prometheus metrics for years and answer PromQL over them
.SH SYNOPSIS
.B varve
.I VERB
.RI [ FLAGS ]
.RI [ ARGUMENTS ]
.SH DESCRIPTION
Varve is a long\-term archive for metrics: one program on one machine. Prometheus and other
senders write to it by remote write, InfluxDB line protocol, OTLP, OpenTSDB and NATS; Grafana, and
whatever speaks the HTTP API of Prometheus, reads from it. Every sample is kept bit for bit.
.PP
.B varve serve
runs the server. It needs no configuration file. The other verbs verify, import, export, copy and
restore archives; those that take a data directory need the server on it to be stopped.
.PP
A flag beats the configuration file, and the file beats the default. A flag shown as
.BR \-\-[no\-]name
is switched off by
.BR \-\-no\-name .
.SH VERBS
`
	manualTail = `.SH SIGNALS
.TP
.B SIGTERM, SIGINT
The server takes no further requests, ends those under way, closes the archive and exits with 0, within 30 seconds.
.TP
.B SIGHUP
The server reads its configuration file again. A mistake in it changes nothing.
.PP
No signal loses a sample that was acknowledged, SIGKILL included.
.SH EXIT STATUS
.TP
.B 0
The verb did what it was asked.
.TP
.B 1
It could not, or it found something wrong. What is on standard error.
.SH ENVIRONMENT
.TP
.B GOMEMLIMIT
The limit that the garbage collector works towards, instead of the one that the server finds from
the memory of its control group or of the machine.
.TP
.B GOGC
How far the heap grows between two collections, in percent, instead of what the server finds.
.TP
.B GOMAXPROCS
Processor cores that are used, instead of all.
.TP
.B NOTIFY_SOCKET
Set by
.BR systemd (1);
the server tells it when it is ready and when it stops.
.SH FILES
.TP
.I /etc/varve/varve.yml
The configuration of the service that the Debian package installs.
.TP
.I /etc/default/varve
Further flags and the environment of the service.
.TP
.I /var/lib/varve
Its data directory. One server at a time uses it.
.SH EXAMPLES
Serve, with the data in a directory of your choice:
.PP
.RS 4
.EX
varve serve \-\-storage.path=/srv/varve
.EE
.RE
.PP
Write the whole configuration with its defaults to a file, and verify what was made of it:
.PP
.RS 4
.EX
varve config > varve.yml
varve check config varve.yml
.EE
.RE
.PP
Ask a server that runs whether it answers queries:
.PP
.RS 4
.EX
varve check server http://127.0.0.1:9095
.EE
.RE
.PP
Verify every checksum of an archive on which no server runs:
.PP
.RS 4
.EX
varve check data /var/lib/varve
.EE
.RE
.SH SEE ALSO
.BR prometheus (1),
.BR promtool (1),
.BR systemd.service (5)
`
)

// manual returns the page in roff's man macros.
func manual(app *kingpin.ApplicationModel) string {
	v := buildVersion()
	var date string
	if built, err := time.Parse(time.RFC3339, v.BuildDate); err == nil {
		date = built.UTC().Format(time.DateOnly)
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".TH VARVE 1 \"%s\" \"Varve %s\" \"User commands\"\n", date, roff(v.Version))
	b.WriteString(manualHead)
	for _, cmd := range app.FlattenedCommands() {
		if !cmd.Hidden {
			manualVerb(&b, cmd)
		}
	}
	b.WriteString(".SH OPTIONS OF ALL VERBS\n")
	manualFlags(&b, app.Flags)
	b.WriteString(manualTail)
	return b.String()
}

func manualVerb(b *strings.Builder, cmd *kingpin.CmdModel) {
	fmt.Fprintf(b, ".SS \"varve %s\"\n", roff(cmd.FullCommand))
	fmt.Fprintf(b, ".B varve %s\n", roff(cmd.FullCommand))
	if summary := cmd.FlagSummary(); summary != "" {
		fmt.Fprintf(b, "%s\n", roff(summary))
	}
	for _, arg := range cmd.Args {
		if !arg.Hidden {
			fmt.Fprintf(b, "%s\n", roff(argument(arg)))
		}
	}
	fmt.Fprintf(b, ".PP\n%s\n", roff(cmd.Help))
	for _, arg := range cmd.Args {
		if !arg.Hidden && arg.Help != "" {
			fmt.Fprintf(b, ".TP\n.I %s\n%s\n", roff(arg.Name), roff(arg.HelpWithEnvar()))
		}
	}
	manualFlags(b, cmd.Flags)
}

// argument is how a synopsis shows an argument.
func argument(arg *kingpin.ArgModel) string {
	text := "<" + arg.Name + ">"
	if repeats(arg.Value) {
		text += "..."
	}
	if !arg.Required {
		text = "[" + text + "]"
	}
	return text
}

func manualFlags(b *strings.Builder, flags []*kingpin.FlagModel) {
	for _, flag := range flags {
		if flag.Hidden {
			continue
		}
		name := "--" + flag.Name
		if flag.IsBoolFlag() {
			name = "--[no-]" + flag.Name
		}
		if flag.Short != 0 {
			name = fmt.Sprintf("-%c, %s", flag.Short, name)
		}
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR", roff(name))
		if !flag.IsBoolFlag() {
			fmt.Fprintf(b, "=\\fI%s\\fR", roff(flag.FormatPlaceHolder()))
		}
		if repeats(flag.Value) {
			b.WriteString(" ...")
		}
		fmt.Fprintf(b, "\n%s\n", roff(flag.HelpWithEnvar()))
	}
}

// repeats says whether a value may be given more than once.
func repeats(v kingpin.Value) bool {
	r, ok := v.(interface{ IsCumulative() bool })
	return ok && r.IsCumulative()
}

// roffEscapes are the characters that roff takes for its own, or draws as others so that what
// is copied from the page is not what was meant.
var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `^`, `\(ha`, `~`, `\(ti`, "`", `\(ga`, "\n", " ")

// roff returns the text as one line of roff that prints it. It is not safe between quotes.
func roff(text string) string {
	text = roffEscapes.Replace(strings.TrimSpace(text))
	// These begin a request.
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
