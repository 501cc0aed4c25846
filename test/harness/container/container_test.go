package container

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestKafka(t *testing.T) {
	k := KafkaForTest(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); err != nil {
		t.Errorf("ping %v: %v", k.Addrs(), err)
	}
}
