package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"varve/api"
)

// buildVersion returns what the build stamped into the binary, or what the Go
// command recorded by itself.
func buildVersion() api.Version {
	v := api.Version{Version: version.Version, Revision: version.Revision, BuildDate: version.BuildDate}
	if v.Version == "" {
		v.Version = "0.1.0-dev"
	}
	if info, ok := debug.ReadBuildInfo(); ok && v.Revision == "" {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.time":
				v.BuildDate = s.Value
			}
		}
	}
	return v
}

func addVersion(app *kingpin.Application, stdout io.Writer) {
	app.Command("version", "Print the version.").Action(func(*kingpin.ParseContext) error {
		v := buildVersion()
		_, err := fmt.Fprintf(stdout, "varve %s\n  revision:       %s\n  build date:     %s\n  go:             %s %s/%s\n  query API:      Prometheus %s\n",
			v.Version, orUnknown(v.Revision), orUnknown(v.BuildDate), runtime.Version(), runtime.GOOS, runtime.GOARCH, api.PrometheusVersion)
		return err
	})
}

func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}
