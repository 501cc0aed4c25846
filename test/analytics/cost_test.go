package analytics

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
)

// TestCost prints what each view costs, as the table of docs/questions.md has it:
// ANALYTICS_EVENTS events over 90 days of 60,000 users and 2,000 accounts, of
// whom one event in 50 is a visitor's that a correction gave to a user.
func TestCost(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("ANALYTICS_EVENTS"))
	if err != nil {
		t.Skip("ANALYTICS_EVENTS=10000000 measures the views")
	}
	s := newStore(t)
	s.exec(t, "SYSTEM START MERGES "+s.internal+".usage_hourly")
	load := time.Now()
	const at = 1_000_000
	for i := 0; i < n; i += at {
		s.exec(t, fmt.Sprintf(`INSERT INTO events (app_id, kind, event, message_id, user_id, anonymous_id, actor_id, actor_kind, account_id, account_source, role, feature_id, module_id, product_id, event_time, received_at, quantity, properties, source_topic_id, source_partition, source_offset)
SELECT 'cost', 'track', concat('Event ', feature), toString(number), if(visitor, '', user), if(visitor, concat('v', user), ''), if(visitor, concat('v', user), user), if(visitor, 'anonymous', 'user'),
	concat('acct', toString(u %% 2000)), 'event', if(u %% 7 = 0, 'admin', 'member'), feature, concat('module', toString(f %% 5)), concat('product', toString(f %% 2)), moment, moment, 1,
	concat('{"plan":"p', toString(f %% 3), '"}'), 't1', 0, number
FROM (SELECT number, toUInt32(pow(cityHash64(number, 1) %% 1000000 / 1000000, 2) * 60000) AS u, toUInt32(pow(cityHash64(number, 2) %% 1000000 / 1000000, 2) * 20) AS f, concat('f', toString(f)) AS feature, concat('u', toString(u)) AS user,
	cityHash64(number, 4) %% 50 = 0 AS visitor,
	toDateTime64('2026-08-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(cityHash64(number, 3) %% (90 * 86400) * 1000000 + number %% 1000000) AS moment
FROM numbers(%d, %d)) SETTINGS max_insert_threads = 1, max_threads = 1`, i, min(at, n-i)))
	}
	// Each visitor turns out to be the user.
	s.exec(t, fmt.Sprintf(`INSERT INTO %[1]s.corrections (app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, events, quantity, source_topic_id, source_offset, block, row, corrected_at)
SELECT app_id, account_id, account_source, if(side.1 < 0, actor_id, substring(actor_id, 2)), if(side.1 < 0, 'anonymous', 'user'), if(side.1 < 0, '', substring(actor_id, 2)), anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, side.1 * n, side.1 * q, 't1', %[2]d, %[2]d, 2 * pair + side.2, '2026-11-01 00:00:00'
FROM (SELECT app_id, account_id, account_source, actor_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, sum(u.events) AS n, sum(u.quantity) AS q, rowNumberInAllBlocks() AS pair
	FROM %[1]s.usage_hourly AS u WHERE app_id = 'cost' AND actor_kind = 'anonymous' GROUP BY ALL)
ARRAY JOIN [(-1, 1), (1, 2)] AS side SETTINGS max_threads = 1`, s.internal, n+1))
	s.insert(t, s.internal+".insight_rules", "app_id, version, use, match, key, value", []string{
		tuple("cost", 1, "version", "", "", ""), tuple("cost", 1, "signup", "feature", "", "f1"), tuple("cost", 1, "value", "feature", "", "f19"), tuple("cost", 1, "exclude", "account", "", "acct3"), tuple("cost", 1, "friction", "feature", "", "f18"),
	})
	t.Logf("%d events loaded in %v", n, time.Since(load))
	range90, range30, range7 := "app = 'cost', from = '2026-08-01', to = '2026-10-30', zone = 'UTC'", "app = 'cost', from = '2026-09-30', to = '2026-10-30', zone = 'UTC'", "app = 'cost', from = '2026-10-23', to = '2026-10-30', zone = 'UTC'"
	stamped := "FROM events WHERE app_id = 'cost' AND kind = 'track' AND toDate(event_time) >= '%s' AND toDate(event_time) < '2026-10-30'"
	on := func(select_, from, more string) string {
		return "SELECT " + select_ + " " + fmt.Sprintf(stamped, from) + more
	}
	fmt.Println("| question | days | CPU ms | latency ms | rows read | over bare `events`: CPU ms | rows read |\n|---|---|---|---|---|---|---|")
	for _, q := range [][4]string{
		{"active users by day", "90", "active_users(" + range90 + ", period = 'day')", on("toDate(event_time) AS d, uniqExact(actor_id)", "2026-08-01", " GROUP BY d")},
		{"stickiness", "30", "stickiness(" + range30 + ")", ""},
		{"lifecycle by week", "90", "lifecycle(" + range90 + ", period = 'week')", ""},
		{"adoption of features", "30", "adoption(" + range30 + ")", on("feature_id, uniqExact(actor_id), uniqExact(account_id), count()", "2026-09-30", " GROUP BY feature_id")},
		{"adopted and dropped", "30", "adoption_changes(" + range30 + ")", ""},
		{"retention by week", "90", "retention(" + range90 + ", period = 'week')", ""},
		{"funnel of 3 steps", "30", "funnel(" + range30 + ", steps = ['f12', 'f15', 'f18'], window = 604800)", on("uniqExact(actor_id), windowFunnel(604800000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)), feature_id = 'f12', feature_id = 'f15', feature_id = 'f18') AS level", "2026-09-30", " AND feature_id IN ('f12', 'f15', 'f18') GROUP BY actor_id")},
		{"sessions", "7", "session_summary(" + range7 + ", period = 'day')", ""},
		{"paths after a step", "7", "paths_after(" + range7 + ", step = 'f18', length = 4)", ""},
		{"time to value", "90", "time_to_value(" + range90 + ")", ""},
		{"friction", "30", "friction(" + range30 + ")", ""},
		{"events as of today, grouped by actor", "30", "(SELECT actor_id, count() FROM events_now(" + range30 + ") GROUP BY actor_id)", on("actor_id, count()", "2026-09-30", " GROUP BY actor_id")},
		{"one account", "30", "account_profile(app = 'cost', from = '2026-09-30', to = '2026-10-30', zone = 'UTC') WHERE account_id = 'acct7'", ""},
		{"one user's timeline", "30", "user_timeline(" + range30 + ", user = 'u7')", ""},
	} {
		cpu, took, rows := cost(t, s, "SELECT * FROM "+q[2])
		line := fmt.Sprintf("| %s | %s | %d | %d | %s |", q[0], q[1], cpu, took, rows)
		if q[3] != "" {
			cpu, _, rows := cost(t, s, q[3])
			line += fmt.Sprintf(" %d | %s |", cpu, rows)
		} else {
			line += " | |"
		}
		fmt.Println(line)
	}
}

// cost runs a query once to warm up and once more, and returns CPU and latency in
// ms and the rows read; or the server's refusal.
func cost(t *testing.T, s store, q string) (cpu, took int64, rows string) {
	t.Helper()
	for range 2 {
		var micros, read int64
		ctx := clickhousego.Context(t.Context(), clickhousego.WithSettings(clickhousego.Settings{"max_threads": 1}), clickhousego.WithProfileEvents(func(all []clickhousego.ProfileEvent) {
			for _, e := range all {
				switch e.Name {
				case "UserTimeMicroseconds", "SystemTimeMicroseconds":
					micros += e.Value
				case "SelectedRows":
					read += e.Value
				}
			}
		}))
		begin := time.Now()
		list, err := s.rows(ctx, q)
		if err != nil {
			t.Errorf("%.500v in %s", err, q)
			return 0, 0, "refused"
		}
		cpu, took, rows = micros/1000, time.Since(begin).Milliseconds(), thousands(read)
		if len(list) == 0 {
			t.Errorf("no rows: %s", q)
		}
	}
	return cpu, took, rows
}

func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, parts...), ",")
}
