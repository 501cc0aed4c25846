package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Fake is kfake: a broker inside this process.
type Fake struct {
	*kfake.Cluster
}

// StartFake starts kfake with one broker and then opts, which may ask for more
// brokers, a data directory and so on.
func StartFake(opts ...kfake.Opt) (*Fake, error) {
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("start kfake: %w", err)
	}
	return &Fake{c}, nil
}

// FakeForTest is StartFake for a test, closed at its end.
func FakeForTest(t testing.TB, opts ...kfake.Opt) *Fake {
	t.Helper()
	f, err := StartFake(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Addrs implements Log.
func (f *Fake) Addrs() []string { return f.ListenAddrs() }

// Kind implements Log.
func (f *Fake) Kind() string { return "kfake" }

// Close implements Log.
func (f *Fake) Close() error {
	f.Cluster.Close()
	return nil
}
