package kafka

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/test/harness/jvm"
)

// minJava is what Kafka 4's broker asks for.
const minJava = 17

// properties are the settings of broker b. What is not said is Kafka's default;
// sizes and waits that are meant for large machines are cut down.
func (c *Cluster) properties(b *broker) map[string]string {
	var voters []string
	for _, v := range c.brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", v.node, v.controller))
	}
	replicas, insync := "1", "1"
	if len(c.brokers) == 3 {
		replicas, insync = "3", "2"
	}
	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(b.node),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"listeners":                      "PLAINTEXT://" + b.addr + ",CONTROLLER://" + b.controller,
		"advertised.listeners":           "PLAINTEXT://" + b.addr,
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                       filepath.Join(b.dir, "data"),

		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              insync,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    insync,
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            insync,
		"auto.create.topics.enable":                        "false",

		// A dead broker is found out in seconds, and a group forms at once.
		"broker.session.timeout.ms":                                   "3000",
		"broker.heartbeat.interval.ms":                                "500",
		"group.initial.rebalance.delay.ms":                            "0",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",

		"num.network.threads":             "2",
		"num.io.threads":                  "4",
		"log.cleaner.dedupe.buffer.size":  "16777216",
		"log.cleaner.backoff.ms":          "500",
		"log.retention.check.interval.ms": "1000",
	}
	if s := c.cfg.Security; s != nil {
		maps.Copy(p, map[string]string{
			"listeners":                      p["listeners"] + ",SASL_SSL://" + b.sasl + ",SSL://" + b.mtls,
			"advertised.listeners":           p["advertised.listeners"] + ",SASL_SSL://" + b.sasl + ",SSL://" + b.mtls,
			"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
			"inter.broker.listener.name":     "PLAINTEXT",

			"sasl.enabled.mechanisms":                               "SCRAM-SHA-512",
			"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"listener.name.ssl.ssl.client.auth":                     "required",
			"ssl.principal.mapping.rules":                           "RULE:^CN=([^,]+).*$/$1/",
			"ssl.keystore.type":                                     "PEM",
			"ssl.keystore.location":                                 s.Keystore,
			"ssl.truststore.type":                                   "PEM",
			"ssl.truststore.location":                               s.Truststore,

			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":           "User:ANONYMOUS",
		})
	}
	maps.Copy(p, c.cfg.Properties)
	return p
}

const log4j = `<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="%[1]s" filePattern="%[1]s.%%i">
      <PatternLayout pattern="%%d{ISO8601} %%p %%c{1}: %%m%%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="file"/></Root>
    <Logger name="kafka.server" level="info"/>
    <Logger name="org.apache.kafka.server" level="info"/>
  </Loggers>
</Configuration>
`

// format writes a broker's configuration and prepares its directory, as an
// operator does before the first start.
func (c *Cluster) format(ctx context.Context, b *broker) error {
	if err := os.MkdirAll(filepath.Join(b.dir, "data"), 0o755); err != nil {
		return fmt.Errorf("make directory of kafka broker %d: %w", b.node, err)
	}
	props := c.properties(b)
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(props)) {
		fmt.Fprintf(&text, "%s=%s\n", k, props[k])
	}
	for name, content := range map[string]string{
		"server.properties": text.String(),
		"log4j2.xml":        fmt.Sprintf(log4j, filepath.Join(b.dir, "server.log")),
	} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("configure kafka broker %d: %w", b.node, err)
		}
	}
	formatted.Lock()
	defer formatted.Unlock()
	checkpoint := filepath.Join(b.dir, "data", "bootstrap.checkpoint")
	if formatted.checkpoint == nil {
		cmd := exec.CommandContext(ctx, c.java, c.javaArgs(b, "kafka.tools.StorageTool",
			"format", "--ignore-formatted", "-t", c.id, "-c", filepath.Join(b.dir, "server.properties"))...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			formatted.checkpoint, err = os.ReadFile(checkpoint)
		}
		if err != nil {
			return fmt.Errorf("format storage of kafka broker %d: %w: %s", b.node, err, bytes.TrimSpace(out))
		}
		return nil
	}
	id := uuid.New()
	meta := fmt.Sprintf("version=1\nnode.id=%d\ndirectory.id=%s\ncluster.id=%s\n", b.node, base64.RawURLEncoding.EncodeToString(id[:]), c.id)
	for path, content := range map[string][]byte{checkpoint: formatted.checkpoint, filepath.Join(b.dir, "data", "meta.properties"): []byte(meta)} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("format storage of kafka broker %d: %w", b.node, err)
		}
	}
	return nil
}

// formatted is what Kafka's own tool wrote for the first broker of this process:
// the versions of features, the same for all. The tool is a JVM of its own, which
// takes a third of the CPU that the start of a broker does.
var formatted struct {
	sync.Mutex // covers checkpoint
	checkpoint []byte
}

func (c *Cluster) javaArgs(b *broker, class string, args ...string) []string {
	return append([]string{
		fmt.Sprintf("-Xmx%dm", c.cfg.HeapMB), "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + filepath.Join(b.dir, "log4j2.xml"),
		"-cp", filepath.Join(c.jars, "*"), class,
	}, args...)
}

// spawn starts a broker's process.
func (c *Cluster) spawn(b *broker) error {
	cmd := exec.Command(c.java, c.javaArgs(b, "kafka.Kafka", filepath.Join(b.dir, "server.properties"))...)
	cmd.Dir = b.dir
	p, err := jvm.Start(cmd, filepath.Join(b.dir, "out.log"))
	if err != nil {
		return fmt.Errorf("start kafka broker %d: %w", b.node, err)
	}
	b.mu.Lock()
	b.proc = p
	b.mu.Unlock()
	c.cfg.Logger.Info("kafka broker started", "node", b.node, "addr", b.addr, "pid", p.Pid())
	return nil
}
