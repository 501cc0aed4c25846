package kafka

import (
	"context"
	_ "embed"

	"github.com/uptakehq/uptake/test/harness/jvm"
)

// Version is the Kafka that pom.xml pins.
const Version = "4.1.1"

//go:embed pom.xml
var pom []byte

// Jars returns the directory with Kafka's jars, and fetches what is not there:
// about 45 MB.
func Jars(ctx context.Context) (string, error) {
	return jvm.Jars(ctx, jvm.Set{Name: "kafka-" + Version, POM: pom, Jar: "kafka_2.13-" + Version + ".jar"})
}
