package scrape

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/config"
)

// load reads the text of scrape_configs and returns it as upstream's configuration,
// with all jobs, those of scrape_config_files too.
func load(text []byte, dir string, logger *slog.Logger) (*config.Config, []*config.ScrapeConfig, error) {
	document := string(text)
	if isList(text) {
		document = "scrape_configs:\n " + strings.ReplaceAll(document, "\n", "\n ")
	}
	c, err := config.Load(document, logger)
	if err != nil {
		return nil, nil, inJob(document, err)
	}
	if err := onlyScrapes(c); err != nil {
		return nil, nil, err
	}
	c.SetDirectory(dir)
	if c.GlobalConfig.BodySizeLimit == 0 {
		c.GlobalConfig.BodySizeLimit = bodyBytesMax // for jobs in files of their own
	}
	jobs, err := c.GetScrapeConfigs()
	if err != nil {
		return nil, nil, err
	}
	for _, job := range jobs {
		if job.BodySizeLimit == 0 {
			job.BodySizeLimit = bodyBytesMax
		}
	}
	return c, jobs, nil
}

// bodyBytesMax bounds the answer of a target whose job sets no body_size_limit. Upstream has no bound then; but a label that is longer
// than what labels.Labels can hold, 16 MiB, ends the process there.
const bodyBytesMax = 16<<20 - 1

// isList says whether a text begins with an item of a list.
func isList(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' || bytes.Equal(line, []byte("---")) {
			continue
		}
		return line[0] == '-' || line[0] == '['
	}
	return false
}

// onlyScrapes refuses what upstream would read and nobody here would heed.
func onlyScrapes(c *config.Config) error {
	var heedless []string
	for name, given := range map[string]bool{
		"alerting":               len(c.AlertingConfig.AlertmanagerConfigs) > 0 || len(c.AlertingConfig.AlertRelabelConfigs) > 0,
		"rule_files":             len(c.RuleFiles) > 0,
		"remote_write":           len(c.RemoteWriteConfigs) > 0,
		"remote_read":            len(c.RemoteReadConfigs) > 0,
		"global.external_labels": !c.GlobalConfig.ExternalLabels.IsEmpty(),
	} {
		if given {
			heedless = append(heedless, name)
		}
	}
	if len(heedless) == 0 {
		return nil
	}
	return fmt.Errorf("%s: an input that scrapes has only global, scrape_configs and scrape_config_files", strings.Join(heedless, ", "))
}

var (
	lineNumber = regexp.MustCompile(`line (\d+)`)
	jobName    = regexp.MustCompile(`^\s*-?\s*job_name:\s*['"]?([^'"#]*[^'"#\s])`)
	jobStart   = regexp.MustCompile(`^(\s*)-\s`)
)

// inJob adds the name of the job to an error that has only the number of a line.
func inJob(document string, err error) error {
	found := lineNumber.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	line, convErr := strconv.Atoi(found[1])
	if convErr != nil {
		return err
	}
	name := jobAt(strings.Split(document, "\n"), line-1)
	if name == "" {
		return err
	}
	// Upstream's text has a line for each fault, and no class that anyone asks for.
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	return fmt.Errorf("job %q: %s", name, text)
}

// jobAt returns the name of the job that a line, counted from 0, lies in.
func jobAt(lines []string, at int) string {
	if at >= len(lines) {
		return ""
	}
	// The items of the list of jobs are those at the indentation of the first item
	// below scrape_configs.
	indent := -1
	from, name := -1, ""
	inJobs := false
	for i, line := range lines {
		if strings.HasPrefix(line, "scrape_configs:") {
			inJobs = true
			continue
		}
		if !inJobs {
			continue
		}
		if item := jobStart.FindStringSubmatch(line); item != nil && (indent < 0 || len(item[1]) == indent) {
			if from >= 0 && i > at {
				break
			}
			indent, from, name = len(item[1]), i, ""
		}
		if job := jobName.FindStringSubmatch(line); job != nil && name == "" {
			name = job[1]
		}
	}
	if from < 0 || at < from {
		return ""
	}
	return name
}
