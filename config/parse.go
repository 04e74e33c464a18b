package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// fileBytesMax bounds a configuration file. The largest sensible one, with a rule
// for each of thousands of users, is far below.
const fileBytesMax = 1 << 20

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	// Line counts from 1; 0 if the mistake stands in no line of the file, such as
	// one in a flag.
	Line int
	Text string
}

// Mistakes is the error of a configuration that can't be used.
type Mistakes struct {
	// File is empty if there was none.
	File string
	List []Mistake
}

// Error returns a line for each mistake, as file:line: text.
func (m *Mistakes) Error() string {
	var b strings.Builder
	for i, one := range m.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case m.File != "" && one.Line > 0:
			fmt.Fprintf(&b, "%s:%d: ", m.File, one.Line)
		case m.File != "":
			fmt.Fprintf(&b, "%s: ", m.File)
		case one.Line > 0:
			fmt.Fprintf(&b, "line %d: ", one.Line)
		}
		b.WriteString(one.Text)
	}
	return b.String()
}

// Default returns the configuration without any file.
func Default() *Config {
	c := &Config{}
	if mistakes := decode(defaultYAML, c); len(mistakes) > 0 {
		panic("config: default.yaml: " + mistakes[0].Text)
	}
	return c
}

// Read returns the configuration of a file, or the default one if path is empty,
// after override, which may be nil, has changed it. What the file names but
// doesn't hold, such as token files, is read too. The error is a *Mistakes if the
// file could be read.
func Read(path string, override func(*Config) error) (*Config, error) {
	var data []byte
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		if data, err = io.ReadAll(io.LimitReader(f, fileBytesMax+1)); err != nil {
			return nil, fmt.Errorf("read configuration %s: %w", path, err)
		}
		if len(data) > fileBytesMax {
			return nil, &Mistakes{File: path, List: []Mistake{{Text: fmt.Sprintf("larger than %d bytes", fileBytesMax)}}}
		}
	}
	c, err := parse(data, filepath.Dir(path), override)
	if mistakes, ok := errors.AsType[*Mistakes](err); ok {
		mistakes.File = path
	}
	return c, err
}

func parse(data []byte, dir string, override func(*Config) error) (*Config, error) {
	c := Default()
	mistakes := decode(data, c)
	if len(mistakes) > 0 {
		return nil, &Mistakes{List: mistakes}
	}
	fingerprint(data, c)
	if override != nil {
		if err := override(c); err != nil {
			return nil, err
		}
	}
	v := &validator{lines: linesOf(data), dir: dir}
	v.check(c)
	if len(v.mistakes) > 0 {
		return nil, &Mistakes{List: v.mistakes}
	}
	return c, nil
}

// decode decodes one strict YAML document over c.
func decode(data []byte, c *Config) []Mistake {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(c)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return mistakesOf(err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return []Mistake{{Line: second.Line, Text: "a second document: a configuration is one"}}
	} else if !errors.Is(err, io.EOF) {
		return mistakesOf(err)
	}
	return nil
}

var (
	lineOfError = regexp.MustCompile(`(?s)^(?:yaml: )?line (\d+): (.*)$`)
	unknownKey  = regexp.MustCompile(`^field (.*) not found in type \S+$`)
	wrongKind   = regexp.MustCompile("(?s)^cannot unmarshal (!!\\w+)(?: `.*`)? into (\\S+)$")
)

// kinds translates Go's types into words of the file.
var kinds = map[string]string{
	"int": "a whole number", "float64": "a number", "bool": "true or false", "string": "a text",
	"[]string": "a list of texts", "map[string]string": "a map of texts",
}

// mistakesOf translates the errors of the YAML decoder, which speak of Go types
// and may repeat values that are secret.
func mistakesOf(err error) []Mistake {
	texts := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = typed.Errors
	}
	var list []Mistake
	for _, text := range texts {
		m := Mistake{Line: 1, Text: strings.TrimPrefix(text, "yaml: ")}
		if parts := lineOfError.FindStringSubmatch(text); parts != nil {
			m.Line, _ = strconv.Atoi(parts[1])
			m.Text = parts[2]
		}
		if parts := unknownKey.FindStringSubmatch(m.Text); parts != nil {
			m.Text = fmt.Sprintf("unknown key %q: \"varve config\" prints all keys", parts[1])
		}
		if parts := wrongKind.FindStringSubmatch(m.Text); parts != nil {
			want, ok := kinds[parts[2]]
			switch {
			case ok:
			case strings.HasPrefix(parts[2], "[]"):
				want = "a list"
			default:
				want = "a section"
			}
			m.Text = "the value must be " + want
		}
		list = append(list, m)
	}
	return list
}

// linesOf returns the line of every key by its path, such as "storage.runs.max_age"
// or "web.tokens.0.name".
func linesOf(data []byte) map[string]int {
	lines := map[string]int{}
	var root yaml.Node
	if yaml.Unmarshal(data, &root) != nil || len(root.Content) == 0 {
		return lines
	}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := join(path, n.Content[i].Value)
				lines[key] = n.Content[i].Line
				walk(key, n.Content[i+1])
			}
		case yaml.SequenceNode:
			for i, item := range n.Content {
				key := join(path, strconv.Itoa(i))
				lines[key] = item.Line
				walk(key, item)
			}
		}
	}
	walk("", root.Content[0])
	return lines
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
