package scrape

import (
	"bytes"
	"io"

	"github.com/prometheus/common/model"
)

// Repair returns an exposition without the lines that can't be read, and those lines.
// It is false for what is no text.
func Repair(text io.Reader, contentType string) (repaired []byte, leftOut []string, ok bool) {
	d, ok := dialectOf(contentType, "", model.UTF8Validation)
	if !ok {
		return nil, nil, false
	}
	var out bytes.Buffer
	r := &repairer{dialect: d, to: &out, leftOut: func(line []byte, _ error) { leftOut = append(leftOut, string(line)) }}
	if err := r.repair(text); err != nil {
		panic(err)
	}
	return out.Bytes(), leftOut, true
}
