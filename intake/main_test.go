package intake_test

import (
	"testing"

	"go.uber.org/goleak"

	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }
