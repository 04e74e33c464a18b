package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/config"
)

// TestOutputAlias shows that an output is another one when what it refers to elsewhere in the file has changed.
func TestOutputAlias(t *testing.T) {
	const text = `
outputs:
  - name: a
    external_labels: &labels {site: one}
    remote_write: {url: 'http://host/w'}
  - name: b
    external_labels: *labels
    remote_write: {url: 'http://host/w'}
`
	c, err := config.Read(write(t, text), nil)
	require.NoError(t, err)
	again, err := config.Read(write(t, strings.Replace(text, "one", "two", 1)), nil)
	require.NoError(t, err)
	require.Equal(t, "two", again.Outputs[1].ExternalLabels["site"])
	require.NotEqual(t, c.Outputs[1].Fingerprint, again.Outputs[1].Fingerprint)
}

// TestNATSAddressWithoutSecret shows that secrets are not taken in addresses, which are shown.
func TestNATSAddressWithoutSecret(t *testing.T) {
	_, err := config.Read(write(t, strings.Replace(twoOutputs, "nats://host", "nats://geheim@host", 1)), nil)
	require.ErrorContains(t, err, "urls")
	require.NotContains(t, err.Error(), "geheim")
}
