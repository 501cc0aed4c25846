package kafka

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestValidateNamesEverySetting(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{nil, nil},
		{[]string{"-kafka-brokers", " , "}, []string{"kafka-brokers"}},
		{[]string{"-kafka-tls", "-kafka-tls-cert", "x"}, []string{"kafka-tls-cert and kafka-tls-key"}},
		{[]string{"-kafka-tls-ca", "x", "-kafka-sasl-user", "u"}, []string{"need kafka-tls", "need kafka-sasl-mechanism"}},
		{[]string{"-kafka-sasl-mechanism", "PLAIN"}, []string{"needs kafka-sasl-user"}},
		{[]string{"-kafka-prefix", "staging."}, nil},
		{[]string{"-kafka-prefix", "stag/ing"}, []string{`kafka-prefix may have only`, `(got "stag/ing")`}},
		{[]string{"-kafka-sasl-mechanism", "GSSAPI"}, []string{`got "GSSAPI"`}},
	} {
		c := DefaultConfig("test")
		set := flag.NewFlagSet("x", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		c.Flags(set)
		if err := set.Parse(tc.args); err != nil {
			t.Fatal(err)
		}
		err := c.Validate()
		if (err == nil) != (len(tc.want) == 0) {
			t.Errorf("%v: got %v, want %v", tc.args, err, tc.want)
		}
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v: got %v, want %q in it", tc.args, err, w)
			}
		}
	}
}

// A client with SCRAM reaches a cluster that asks for it, and one with another
// password does not. Clients may share a registry, also one after the other.
func TestOptionsReachACluster(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "admin", "right"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	reg := prometheus.NewRegistry()
	for range 2 {
		for _, password := range []string{"right", "wrong"} {
			c := DefaultConfig("client-" + password)
			c.Brokers = cluster.ListenAddrs()
			c.SASLMechanism, c.SASLUser = "SCRAM-SHA-512", "admin"
			if err := c.SASLPassword.Set(password); err != nil {
				t.Fatal(err)
			}
			opts, err := c.Options(slog.New(slog.DiscardHandler), reg)
			if err != nil {
				t.Fatal(err)
			}
			cl, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			if err := cl.Ping(context.Background()); (err == nil) != (password == "right") {
				t.Errorf("password %q: ping says %v", password, err)
			}
			cl.Close()
		}
	}
}
