package main

import (
	"io"

	"github.com/alecthomas/kingpin/v2"

	"varve/config"
)

func addConfig(app *kingpin.Application, stdout io.Writer) {
	app.Command("config", "Print the whole default configuration, with comments.").Action(func(*kingpin.ParseContext) error {
		_, err := io.WriteString(stdout, config.DefaultYAML())
		return err
	})
}
