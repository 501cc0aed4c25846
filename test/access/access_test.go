// Package access tests the services on an Apache Kafka that asks for logins and rights:
// TLS with a private authority, SCRAM, client certificates and the StandardAuthorizer.
package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	prefix   = "staging."
	password = "correct horse"
)

// site is a cluster with an authority of its own.
type site struct {
	t     *testing.T
	dir   string
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	log   *kafka.Cluster
	admin *kadm.Client
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.caKey = newKey(t)
	s.ca = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, s.ca, s.ca, s.caKey.Public(), s.caKey)
	if err != nil {
		t.Fatal(err)
	}
	s.write("ca.crt", block("CERTIFICATE", der))
	s.certificate("broker", time.Now().Add(time.Hour))
	s.write("broker.pem", s.read("broker.key")+s.read("broker.crt"))
	s.log = kafka.ForTest(t, kafka.Config{Brokers: 1, Security: &kafka.Security{Keystore: s.path("broker.pem"), Truststore: s.path("ca.crt")}})
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.log.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	s.admin = kadm.NewClient(cl)
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// certificate writes NAME.crt and NAME.key of a name.
func (s *site) certificate(name string, until time.Time) {
	s.t.Helper()
	key := newKey(s.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, s.ca, key.Public(), s.caKey)
	if err != nil {
		s.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".crt", block("CERTIFICATE", der))
	s.write(name+".key", block("PRIVATE KEY", pkcs8))
}

// scram are the flags of a client that logs in as a user.
func (s *site) scram(user, password string) []string {
	s.write(user+".password", password)
	return []string{
		"-kafka-brokers", strings.Join(s.log.SASLAddrs(), ","), "-kafka-tls", "-kafka-tls-ca", s.path("ca.crt"),
		"-kafka-sasl-mechanism", "SCRAM-SHA-512", "-kafka-sasl-user", user, "-kafka-sasl-password", "file:" + s.path(user+".password"),
	}
}

// mtls are the flags of a client that shows a certificate.
func (s *site) mtls(name string) []string {
	return []string{
		"-kafka-brokers", strings.Join(s.log.MTLSAddrs(), ","), "-kafka-tls", "-kafka-tls-ca", s.path("ca.crt"),
		"-kafka-tls-cert", s.path(name + ".crt"), "-kafka-tls-key", s.path(name + ".key"),
	}
}

func (s *site) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	s.t.Cleanup(cancel)
	return ctx
}

// users creates the users with their rights.
func (s *site) users() {
	s.t.Helper()
	for _, user := range topic.Users {
		up := kadm.UpsertSCRAM{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password}
		if done, err := s.admin.AlterUserSCRAMs(s.within(time.Minute), nil, []kadm.UpsertSCRAM{up}); err != nil || done.Error() != nil {
			s.t.Fatal(err, done.Error())
		}
		for _, r := range topic.NewNames(prefix).Rights(user, "uptake.enricher.v1") {
			for _, o := range r.Operations {
				s.grant(user, r, o)
			}
		}
	}
}

func acl(user string, r topic.Right, operation string) *kadm.ACLBuilder {
	o, err := kmsg.ParseACLOperation(operation)
	if err != nil {
		panic(err) // cannot happen: rights have Kafka's operations
	}
	b := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Operations(o)
	pattern := kmsg.ACLResourcePatternTypeLiteral
	if r.Prefixed {
		pattern = kmsg.ACLResourcePatternTypePrefixed
	}
	b = b.ResourcePatternType(pattern)
	switch r.Resource {
	case topic.ResourceTopic:
		return b.Topics(r.Name)
	case topic.ResourceGroup:
		return b.Groups(r.Name)
	}
	return b.TransactionalIDs(r.Name)
}

func (s *site) grant(user string, r topic.Right, operation string) {
	s.t.Helper()
	results, err := s.admin.CreateACLs(s.within(time.Minute), acl(user, r, operation))
	for _, one := range results {
		err = errors.Join(err, one.Err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// revoke takes an operation away and returns when the broker has no such right any more.
func (s *site) revoke(user string, r topic.Right, operation string) {
	s.t.Helper()
	ctx := s.within(time.Minute)
	results, err := s.admin.DeleteACLs(ctx, acl(user, r, operation))
	if err != nil || len(results) != 1 || len(results[0].Deleted) != 1 {
		s.t.Fatalf("revoke %s on %s %s of %s: %v, %+v", operation, r.Resource, r.Name, user, err, results)
	}
	for {
		left, err := s.admin.DescribeACLs(ctx, acl(user, r, operation))
		if err != nil {
			s.t.Fatal(err)
		}
		if len(left[0].Described) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// services are the users that the stack runs, by the name of the service.
var services = map[string]string{stack.Gateway: topic.UserGateway, stack.Enricher: topic.UserEnricher, stack.Writer: topic.UserWriter}

// Each service does its work with the rights that `enricher topics acls` lists and no
// other, over TLS with a private authority: the gateway with a client certificate, the
// others with SCRAM. Without one of the rights it refuses to work and names it.
func TestServicesWorkWithTheirRightsAlone(t *testing.T) {
	s := newSite(t)
	s.users()
	s.certificate(topic.UserGateway, time.Now().Add(time.Hour))
	started := stack.ForTest(t, stack.Config{Log: s.log, Prefix: prefix, Args: map[string][]string{
		stack.Gateway: s.mtls(topic.UserGateway), stack.Enricher: s.scram(topic.UserEnricher, password), stack.Writer: s.scram(topic.UserWriter, password),
	}})
	c := loadgen.DefaultConfig(time.Now())
	c.IDPrefix, c.Events, c.Accounts, c.BatchMax, c.Bad = "access-", 200, 10, 40, 0.02
	p, err := loadgen.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l := loadgen.NewLedger()
	sender := loadgen.Sender{URLs: started.URLs(), WriteKey: stack.WriteKeyOf(stack.App), Workers: 4, Rate: 1500, MaxBackoff: 500 * time.Millisecond}
	if err := sender.Run(s.within(time.Minute), p, l, 0, len(p.Requests)); err != nil {
		t.Fatal(err)
	}
	o := loadgen.NewOracle(stack.App, loadgen.Resolved)
	o.Prefix = c.IDPrefix
	o.Add(p, l)
	if d, err := loadgen.AwaitEqual(s.within(90*time.Second), started.Conn, stack.Database, o); err != nil || !d.Equal() || o.Acked() != p.Good() {
		t.Fatalf("%d of %d acked, %v\n%s", o.Acked(), p.Good(), err, d)
	}

	s.operator(started)
	names := topic.NewNames(prefix)
	for _, service := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		user := services[service]
		for i, r := range names.Rights(user, "uptake.enricher.v1") {
			for _, operation := range r.Operations {
				if !longtest.Enabled() && r.Resource == topic.ResourceTopic && (i > 0 || operation == "DESCRIBE_CONFIGS") {
					continue
				}
				if strings.HasSuffix(r.Name, ".") {
					continue // transactional ids of apps, which are used when a new key arrives
				}
				s.revoke(user, r, operation)
				s.refused(started, service, user, r, operation)
				s.grant(user, r, operation)
			}
		}
	}
}

// refused starts another process of a service and waits until it says which right it
// lacks.
func (s *site) refused(started *stack.Stack, service, user string, r topic.Right, operation string) {
	s.t.Helper()
	p, err := started.Spawn(service)
	if err != nil {
		s.t.Fatal(err)
	}
	defer p.Kill()
	// Without READ or WRITE a user may not even describe a topic, so that it seems to lack
	// its other operations too.
	want := regexp.MustCompile(operation + "( and [A-Z_]+)* on " + r.Resource + " " + regexp.QuoteMeta(r.Name) + `\S*: the Kafka user lacks a right`)
	deadline := time.Now().Add(30 * time.Second)
	for !want.MatchString(p.LastLog()) {
		if time.Now().After(deadline) {
			s.t.Errorf("%s as %s does not say that it lacks %s:\n%s", service, user, want, p.Tail(15))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// operator runs commands as the user of people and jobs.
func (s *site) operator(started *stack.Stack) {
	s.t.Helper()
	ctx := s.within(time.Minute)
	for _, c := range [][]string{
		{stack.Writer, "audit", "-settle-wait", "200ms"},
		{stack.Writer, "init"},
	} {
		if out, err := started.Run(ctx, c[0], c[1], slices.Concat(c[2:], s.scram(topic.UserOperator, password))...); err != nil {
			s.t.Errorf("%v as operator: %v\n%s", c, err, out)
		}
	}
}
