package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// checkAnswerBytesMax bounds what is read of an answer: its first line is shown.
const checkAnswerBytesMax = 512

// addCheckServer adds the verb that health checks of containers call, where there is no other
// client, and scripts that wait for a start.
func addCheckServer(check *kingpin.CmdClause, stdout io.Writer) {
	cmd := check.Command("server", "Ask a running server whether it answers queries; for health checks.")
	base := cmd.Arg("url", "The server, with the path of its external URL if that has one.").Default("http://127.0.0.1:9095").URL()
	alive := cmd.Flag("alive", "Ask only whether the process lives. It does while it starts, too.").Bool()
	timeout := cmd.Flag("timeout", "How long to wait for the answer.").Default("5s").Duration()
	file := cmd.Flag("http.config.file", "File with authentication and TLS of the client, in the format of promtool's.").PlaceHolder("FILE").ExistingFile()
	cmd.Action(func(*kingpin.ParseContext) error {
		client, err := importClient(*file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		path := "/-/ready"
		if *alive {
			path = "/-/healthy"
		}
		answer, err := askServer(ctx, client, (*base).JoinPath(path))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, answer)
		return err
	})
}

// askServer returns the first line of an answer with status 200. Any other is an error.
func askServer(ctx context.Context, client *http.Client, u *url.URL) (line string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return "", err
	}
	began := time.Now()
	answer, err := client.Do(request)
	if errors.Is(err, context.DeadlineExceeded) {
		return "", fmt.Errorf("%s did not answer within %s", u.Redacted(), time.Since(began).Round(time.Millisecond))
	}
	if err != nil {
		return "", fmt.Errorf("ask the server: %w; give the URL that it listens on", err)
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, checkAnswerBytesMax))
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", u.Redacted(), err)
	}
	line, _, _ = strings.Cut(strings.ToValidUTF8(string(body), "?"), "\n")
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %d: %q", u.Redacted(), answer.StatusCode, line)
	}
	return line, nil
}
