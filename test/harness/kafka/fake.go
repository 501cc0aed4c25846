package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

// Fake is the log of one machine: kfake, inside this process. Its methods for
// faults, leaders and the like are kfake's.
type Fake struct {
	*locallog.Log
}

// StartFake starts it with one broker, in memory. opts may ask for more of
// either.
func StartFake(opts ...kfake.Opt) (*Fake, error) {
	l, err := locallog.Start(locallog.Config{Addr: "127.0.0.1:0", Options: opts})
	if err != nil {
		return nil, fmt.Errorf("start kfake: %w", err)
	}
	return &Fake{l}, nil
}

// FakeForTest is StartFake for a test, closed at its end.
func FakeForTest(t testing.TB, opts ...kfake.Opt) *Fake {
	t.Helper()
	f, err := StartFake(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Log.Close)
	return f
}

// Addrs implements Log.
func (f *Fake) Addrs() []string { return f.ListenAddrs() }

// Kind implements Log.
func (f *Fake) Kind() string { return "kfake" }

// Close implements Log.
func (f *Fake) Close() error {
	f.Log.Close()
	return nil
}
