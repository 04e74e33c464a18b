// Command varve keeps Prometheus metrics for years and answers PromQL over them.
//
// Each verb has a file of its own: serve, config, check config, check data,
// check server, inspect, outputs, seal, plan, import, export, snapshot, version. The server is put together in server.go, under a drawing of
// its parts; this is the one place that knows all packages.
//
// Exit codes: 0 when the verb did what it was asked, 1 when it could not or found
// something wrong. What a verb answers goes to standard output, what went wrong
// and the log to standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one verb and returns the exit code.
func execute(args []string, stdout, stderr io.Writer) (code int) {
	// The parser ends the process after it has printed help. It is made to unwind
	// to here instead.
	type exit int
	defer func() {
		if r := recover(); r != nil {
			asked, ok := r.(exit)
			if !ok {
				panic(r)
			}
			code = int(asked)
		}
	}()
	app := kingpin.New("varve", "Varve keeps Prometheus metrics for years and answers PromQL over them.")
	end := func(status int) { panic(exit(status)) }
	app.UsageWriter(stdout).ErrorWriter(stderr).Terminate(end)
	app.HelpFlag.Short('h')
	addManual(app)
	addCompletion(app, stdout, end)

	addServe(app, stderr)
	addConfig(app, stdout)
	check := app.Command("check", "Verify a configuration or an archive without a running server, or ask one that runs how it is.")
	addCheckConfig(check, stdout, stderr)
	addCheckData(check, stdout, stderr)
	addCheckServer(check, stdout)
	addInspect(app, stdout)
	addOutputs(app, stdout)
	addSeal(app, stdout, stderr)
	addPlan(app, stdout, stderr)
	addImport(app, stdout, stderr)
	addExport(app, stdout, stderr)
	addSnapshot(app, stdout, stderr)
	addVersion(app, stdout)
	_, err := app.Parse(passDashes(app, args))
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	default:
		fmt.Fprintf(stderr, "varve: %v\n", err)
		return 1
	}
}

// errFound ends a verb that has printed what is wrong.
var errFound = errors.New("something is wrong")
