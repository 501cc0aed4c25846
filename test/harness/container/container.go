// Package container starts Kafka and ClickHouse in containers, for the
// contract suites, where a Docker engine answers. It finds the engine as the
// docker command does; where there is none, tests are skipped and say so.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/uptakehq/uptake/test/harness/kafka"
)

// Images that are started. ClickHouse is a release with the fix of #112649 and
// of CVE-2026-116366, as the README asks of servers.
const (
	KafkaImage      = "apache/kafka:" + kafka.Version
	ClickHouseImage = "clickhouse/clickhouse-server:26.8.36.3"
)

// RequireEnv is the environment variable that, set to 1, makes tests fail
// where they would skip for want of an engine.
const RequireEnv = "UPTAKE_REQUIRE_DOCKER"

// Engine is nil when a container engine answers, and says why not otherwise.
func Engine(ctx context.Context) error {
	provider, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(log.New(io.Discard, "", 0)))
	if err != nil {
		return fmt.Errorf("no container engine: %w", err)
	}
	defer provider.Close()
	if err := provider.Health(ctx); err != nil {
		return fmt.Errorf("no container engine: %w", err)
	}
	return nil
}

// need skips t, aloud, where no engine answers.
func need(t testing.TB, ctx context.Context) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts containers; not under -short")
	}
	err := Engine(ctx)
	if err != nil && os.Getenv(RequireEnv) == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("SKIPPED, not run in containers: %v (install Docker Engine, or start it; %s=1 makes this a failure)", err, RequireEnv)
	}
}

// Kafka is a broker in a container.
type Kafka struct {
	addr      string
	container testcontainers.Container
}

// KafkaForTest starts one broker for t.
func KafkaForTest(t testing.TB) *Kafka {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	need(t, ctx)
	k, err := StartKafka(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// StartKafka starts one broker in KRaft mode. The port on this machine is
// fixed beforehand, since the broker has to advertise it.
func StartKafka(ctx context.Context) (*Kafka, error) {
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("start kafka container: %w", err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	inside := network.MustParsePort("9092/tcp")
	c, err := testcontainers.Run(ctx, KafkaImage,
		testcontainers.WithExposedPorts("9092/tcp"),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			hc.PortBindings = network.PortMap{inside: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(port)}}}
		}),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                                  "1",
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 "1@localhost:9093",
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_LISTENERS":                                "PLAINTEXT://:9092,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":                     "PLAINTEXT://" + addr,
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":         "0",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                "false",
			"KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS":          "1000",
		}),
		testcontainers.WithWaitStrategy(wait.ForLog("Kafka Server started").WithStartupTimeout(2*time.Minute)),
	)
	k := &Kafka{addr: addr, container: c}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start kafka container: %w", err), k.Close())
	}
	return k, nil
}

// Addrs implements kafka.Log.
func (k *Kafka) Addrs() []string { return []string{k.addr} }

// Kind implements kafka.Log.
func (k *Kafka) Kind() string { return "container" }

// Close implements kafka.Log.
func (k *Kafka) Close() error { return testcontainers.TerminateContainer(k.container) }

// ClickHouseForTest starts a ClickHouse server for t and returns the address of
// its native protocol. User default has no password there, and the port is
// bound to this machine only.
func ClickHouseForTest(t testing.TB) (nativeAddr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	need(t, ctx)
	loopback := []network.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1")}}
	c, err := testcontainers.Run(ctx, ClickHouseImage,
		testcontainers.WithExposedPorts("9000/tcp", "8123/tcp"),
		testcontainers.WithEnv(map[string]string{"CLICKHOUSE_SKIP_USER_SETUP": "1"}),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			hc.PortBindings = network.PortMap{network.MustParsePort("9000/tcp"): loopback, network.MustParsePort("8123/tcp"): loopback}
		}),
		testcontainers.WithWaitStrategy(wait.ForHTTP("/ping").WithPort("8123/tcp").WithStartupTimeout(2*time.Minute)),
	)
	t.Cleanup(func() {
		if err := testcontainers.TerminateContainer(c); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatalf("start clickhouse container: %v", err)
	}
	addr, err := c.PortEndpoint(ctx, "9000/tcp", "")
	if err != nil {
		t.Fatalf("address of the clickhouse container: %v", err)
	}
	return addr
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
