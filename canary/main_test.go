package canary_test

import (
	"testing"

	"varve/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
