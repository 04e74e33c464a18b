package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"varve/intake"
	"varve/intake/remoteread"
)

// addImportRemoteRead adds the verb that imports from a live server.
func addImportRemoteRead(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("remote-read", "Import from a live server by Prometheus' remote read, whole days at a time, and prove that every sample arrived. Prometheus adds its external labels to what it answers.")
	from := c.Arg("source", "The server to read from, or the URL of its remote read if the path isn't /api/v1/read.").Required().URL()
	file := c.Flag("source.http.config.file", "File with authentication and TLS of the client to the source, in the format of promtool's.").PlaceHolder("FILE").ExistingFile()
	samples := c.Flag("samples", "Ask the source for samples and not for chunks.").Bool()
	f := addIntakeFlags(c, stdout, stderr)
	c.Action(func(*kingpin.ParseContext) error {
		return f.importTo("", func(_ context.Context, wanted intakeRange, p *intakeProgress) (intake.Source, error) {
			if *f.start == "" {
				return nil, errors.New("give --start: nobody knows where a server's samples begin")
			}
			connect, err := httpConfig(*file)
			if err != nil {
				return nil, err
			}
			end := wanted.end
			if end == 0 {
				end = f.now().UnixMilli()
			}
			u := *from
			if strings.Trim(u.Path, "/") == "" || strings.HasSuffix(u.Path, "/") {
				u = u.JoinPath("/api/v1/read")
			}
			return remoteread.Open(remoteread.Options{
				Selection: remoteread.Selection{Start: wanted.start, End: end - 1, Selectors: wanted.selectors, Scratch: *f.scratch},
				URL:       u, HTTP: connect, Patience: *f.patience, SamplesOnly: *samples, Retrying: p.retrying,
			})
		})
	})
}
