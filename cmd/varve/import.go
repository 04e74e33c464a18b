package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	config_util "github.com/prometheus/common/config"
)

// addImport adds the verbs that send files to a running server.
func addImport(app *kingpin.Application, stdout, stderr io.Writer) {
	cmd := app.Command("import", "Bring the past of series to a server: from files, blocks or another server. An import goes on where it ended before.")
	addImportOf(cmd, "openmetrics", "Import OpenMetrics, or the text format of Prometheus.", cutExposition, stdout, stderr, func(c *kingpin.CmdClause) func() (string, url.Values, int) {
		format := c.Flag("format", "openmetrics (timestamps in seconds) or prometheus (in milliseconds).").Default("openmetrics").Enum("openmetrics", "prometheus")
		extra := c.Flag("extra-label", "A label name=value that every series gets, repeatable.").Strings()
		return func() (string, url.Values, int) {
			return "/api/v1/import/prometheus", url.Values{"format": {*format}, "extra_label": *extra}, 0
		}
	})
	addImportOf(cmd, "csv", "Import CSV.", cutCSV, stdout, stderr, func(c *kingpin.CmdClause) func() (string, url.Values, int) {
		format := c.Flag("format", "What the columns are, such as 1:label:host,2:metric:cpu,3:time:unix_s; times may be unix_s, unix_ms, unix_us, unix_ns, rfc3339 or custom:LAYOUT.").Required().String()
		header := c.Flag("header", "Records to pass over at the start of each file.").Default("0").Uint16()
		extra := c.Flag("extra-label", "A label name=value that every series gets, repeatable.").Strings()
		return func() (string, url.Values, int) {
			return "/api/v1/import/csv", url.Values{"format": {*format}, "extra_label": *extra}, int(*header)
		}
	})
	addImportOf(cmd, "influx", "Import the line protocol of InfluxDB.", cutInflux, stdout, stderr, func(c *kingpin.CmdClause) func() (string, url.Values, int) {
		precision := c.Flag("precision", "What timestamps are in.").Default("ns").Enum("ns", "us", "ms", "s", "m", "h")
		extra := c.Flag("extra-label", "A label name=value that every series gets, repeatable.").Strings()
		return func() (string, url.Values, int) {
			return "/api/v1/import/influx", url.Values{"precision": {*precision}, "extra_label": *extra}, 0
		}
	})
	addImportTSDB(cmd, stdout, stderr)
	addImportRemoteRead(cmd, stdout, stderr)
}

// importPieceBytes is what is sent at a time: some ten thousand samples, so that a sync to disk costs next to nothing
// each, and little to send again.
const importPieceBytes = 8 << 20

func addImportOf(parent *kingpin.CmdClause, name, help string, cut cutter, stdout, stderr io.Writer, flags func(*kingpin.CmdClause) func() (string, url.Values, int)) {
	c := parent.Command(name, help)
	files := c.Arg("file", "Files; .gz and .zst are decompressed, - is standard input.").Required().Strings()
	base := c.Flag("url", "The server.").Default("http://127.0.0.1:9095").URL()
	httpFile := c.Flag("http.config.file", "File with authentication and TLS of the client, in the format of promtool's.").PlaceHolder("FILE").ExistingFile()
	state := c.Flag("state", "File that remembers how far each file was sent. Default: beside each file, with .varve-import at its end.").PlaceHolder("FILE").String()
	restart := c.Flag("restart", "Begin anew, whatever was sent before.").Bool()
	stop := c.Flag("stop-on-refusal", "End at the first piece of which something is refused. Its good lines are stored all the same.").Bool()
	patience := c.Flag("give-up-after", "How long the server may be unreachable or busy.").Default("10m").Duration()
	zip := c.Flag("compress", "Compress what is sent, for slow networks.").Bool()
	target := flags(c)
	c.Action(func(*kingpin.ParseContext) error {
		client, err := importClient(*httpFile)
		if err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer cancel()
		path, parameters, header := target()
		s := &importSender{
			client: client, target: (*base).JoinPath(path), parameters: parameters, compress: *zip, patience: *patience,
			now: time.Now, wait: waitFor,
		}
		i := &importer{
			sender: s, cut: cut, header: header, pieceBytes: importPieceBytes, stop: *stop, restart: *restart, stateFile: *state,
			out: stdout, progress: newImportProgress(stderr, time.Now), errors: stderr,
		}
		return i.files(ctx, *files)
	})
}

// importClient returns the client that a file of promtool's format describes.
func importClient(file string) (*http.Client, error) {
	c := config_util.DefaultHTTPClientConfig
	if file != "" {
		loaded, _, err := config_util.LoadHTTPConfigFile(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		c = *loaded
	}
	client, err := config_util.NewClientFromConfig(c, "varve import")
	if err != nil {
		return nil, err
	}
	// A POST that is redirected becomes a GET.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

// waitFor waits, unless the context ends first.
func waitFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
