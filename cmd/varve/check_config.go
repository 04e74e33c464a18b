package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kingpin/v2"

	"varve/config"
)

func addCheckConfig(check *kingpin.CmdClause, stdout, stderr io.Writer) {
	cmd := check.Command("config", "Verify a configuration file and the files it names; every mistake is named with its line.")
	file := cmd.Arg("file", "The configuration file.").Required().String()
	cmd.Action(func(*kingpin.ParseContext) error {
		c, err := config.Read(*file, nil)
		if err == nil {
			_, err = newPolicy(c)
		}
		if mistakes, ok := errors.AsType[*config.Mistakes](err); ok {
			fmt.Fprintln(stderr, mistakes)
			return errFound
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s is valid.\n", *file)
		return err
	})
}
