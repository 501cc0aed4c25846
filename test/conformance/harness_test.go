package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// stage is a running stack with an app for each scenario.
type stage struct {
	*stack.Stack
	log *kafka.Fake
	dir string
}

// shared is the stage of all tests. The first test that asks starts it and
// TestMain closes it.
var shared struct {
	once sync.Once
	stage
	err error
}

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if err := errors.Join(shared.close(), stack.Cleanup()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// forTest returns the stage, which has an app for every scenario of every client.
func forTest(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the services and ClickHouse; not under -short")
	}
	shared.once.Do(func() { shared.err = shared.start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(shared.Tails(20))
		}
	})
	return &shared.stage
}

func (s *stage) start() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // it may have to fetch and build
	defer cancel()
	if s.dir, err = os.MkdirTemp("", "uptake-conformance-"); err != nil {
		return err
	}
	if s.log, err = kafka.StartFake(); err != nil {
		return err
	}
	file := filepath.Join(s.dir, "conformance-keys.yaml")
	if err := os.WriteFile(file, []byte(keyFile()), 0o600); err != nil {
		return err
	}
	cfg := stack.Config{Dir: s.dir, Log: s.log, Args: map[string][]string{stack.Gateway: {"-keys", file}}}
	if s.Stack, err = stack.Start(ctx, cfg); err != nil {
		return err
	}
	enricher, err := stack.Binary(ctx, stack.Enricher, stack.Build{})
	if err != nil {
		return err
	}
	for _, app := range apps() {
		if !strings.HasSuffix(app, callsScenario) {
			continue
		}
		cmd := exec.CommandContext(ctx, enricher, "catalog", "apply", "-app", app, "-author", "test", "-reason", "a new installation",
			"-kafka-brokers", strings.Join(s.log.Addrs(), ","), filepath.Join("testdata", "catalog.yaml"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("catalog of %s: %w\n%s", app, err, out)
		}
	}
	return nil
}

func (s *stage) close() error {
	var errs []error
	if s.Stack != nil {
		errs = append(errs, s.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// url is where the gateway takes events.
func (s *stage) url() string { return s.URLs()[0] }

// apps are those of every scenario.
func apps() []string {
	var list []string
	server := servers()
	for _, clients := range languageClients() {
		server = append(server, clients...)
	}
	for _, c := range server {
		list = append(list, appOf(c.sdk, callsScenario))
		for _, f := range c.faultsToMeet() {
			list = append(list, appOf(c.sdk, f))
		}
	}
	for _, c := range browserClients() {
		list = append(list, appOf(c.sdk, callsScenario))
		for _, f := range c.browserFaults() {
			list = append(list, appOf(c.sdk, f))
		}
	}
	for _, source := range importSources {
		list = append(list, importApp(source))
	}
	return list
}

// keyFile is the gateway's, with a key for each app.
func keyFile() string {
	var b strings.Builder
	b.WriteString("apps:\n")
	for _, app := range apps() {
		fmt.Fprintf(&b, "  - id: %s\n    keys: ['%s']\n    ip: full\n    account_keys: [company, account.id]\n", app, keys.HashOf(keyOf(app)))
	}
	b.WriteString("...\n")
	return b.String()
}

// keyOf is the write key of an app. Moesif's SDK takes none below 50 characters.
func keyOf(app string) string { return "uk_conformance_" + app + strings.Repeat("_", 60-len(app)) }

// settled returns when ClickHouse holds all that the gateway has acked: the
// enricher has read the log of raw events to its end, and then the writer the
// logs of enriched and of rejected ones. Nothing may be on its way to the gateway.
func (s *stage) settled(t *testing.T) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.log.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for _, step := range []struct {
		group  string
		topics []string
	}{
		{topic.Unprefixed.GroupEnricher, []string{topic.Unprefixed.Raw}},
		{topic.Unprefixed.GroupRollupWriter, []string{topic.Unprefixed.Enriched, topic.Unprefixed.Rejected}},
	} {
		ends, err := admin.ListEndOffsets(ctx, step.topics...)
		if err != nil {
			t.Fatal(err)
		}
		err = stack.Await(ctx, "group "+step.group, func() error {
			commits, err := admin.FetchOffsets(ctx, step.group)
			if err != nil {
				return err
			}
			var behind error
			ends.Each(func(end kadm.ListedOffset) {
				if at, _ := commits.Lookup(end.Topic, end.Partition); end.Offset > 0 && at.At < end.Offset {
					behind = fmt.Errorf("%s/%d is at %d of %d", end.Topic, end.Partition, at.At, end.Offset)
				}
			})
			return behind
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// stored is a row of events.
type stored struct {
	kind, event, id, user, anonymous, previous string
	account                                    string    // as the event named it, not by membership
	at, sent                                   time.Time // zero: none
	quantity                                   int64
	protocol, feature                          string
	properties, traits, context                string // JSON text
}

// events returns what ClickHouse holds by app.
func (s *stage) events(t *testing.T) map[string][]stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rows, err := s.Conn.Query(ctx, `SELECT app_id, kind, event, message_id, user_id, anonymous_id, previous_id,
			if(account_source = 'event', account_id, ''), timestamp, sent_at, quantity, protocol, feature_id,
			toJSONString(properties), toJSONString(traits), context
		FROM `+stack.Database+`.events ORDER BY app_id, source_partition, source_offset`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	byApp := map[string][]stored{}
	for rows.Next() {
		var app string
		var e stored
		var at, sent *time.Time
		if err := rows.Scan(&app, &e.kind, &e.event, &e.id, &e.user, &e.anonymous, &e.previous, &e.account, &at, &sent,
			&e.quantity, &e.protocol, &e.feature, &e.properties, &e.traits, &e.context); err != nil {
			t.Fatal(err)
		}
		if at != nil {
			e.at = *at
		}
		if sent != nil {
			e.sent = *sent
		}
		byApp[app] = append(byApp[app], e)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return byApp
}

// rejected returns the reasons, by app, of what was put aside.
func (s *stage) rejected(t *testing.T) map[string][]string {
	t.Helper()
	rows, err := s.Conn.Query(t.Context(), `SELECT app_id, code FROM `+stack.Database+`.rejected_events ORDER BY app_id, code`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	byApp := map[string][]string{}
	for rows.Next() {
		var app, code string
		if err := rows.Scan(&app, &code); err != nil {
			t.Fatal(err)
		}
		byApp[app] = append(byApp[app], code)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return byApp
}

// traits returns what the views users and accounts say of an app, by id.
func (s *stage) traits(t *testing.T, view, app string) map[string]map[string]string {
	t.Helper()
	q := fmt.Sprintf("SELECT %[1]s_id, traits FROM %[2]s.%[1]ss WHERE app_id = ?", view, stack.Database)
	rows, err := s.Conn.Query(t.Context(), q, app)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	byID := map[string]map[string]string{}
	for rows.Next() {
		var id string
		var traits map[string]string
		if err := rows.Scan(&id, &traits); err != nil {
			t.Fatal(err)
		}
		byID[id] = traits
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return byID
}
