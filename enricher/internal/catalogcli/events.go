package catalogcli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// clickHouse asks a server about real events, over HTTP and for reading only.
type clickHouse struct {
	url      string
	database string
	user     string
	password setting.Secret
	days     int
	samples  int
}

func (ch *clickHouse) flags(set *flag.FlagSet) {
	set.StringVar(&ch.url, "clickhouse-http", "", "`url` of ClickHouse's HTTP interface, to look at real events; empty: none are looked at")
	set.StringVar(&ch.database, "clickhouse-database", "uptake", "`database` of the tables")
	set.StringVar(&ch.user, "clickhouse-user", "", "user `name`")
	set.Var(&ch.password, "clickhouse-password", "`password`, or file:PATH")
	set.IntVar(&ch.days, "days", 7, "how many days back to look")
	set.IntVar(&ch.samples, "samples", 100, "events to look into of each kind and name, where rules on properties decide")
}

// rows asks a query with the parameters app and days, and calls row with each
// row of the answer.
func (ch *clickHouse) rows(ctx context.Context, query, app string, row func(*json.Decoder) error) error {
	if ch.days < 1 || ch.days > 3650 {
		return usage(fmt.Errorf("days must be 1 to 3650 (got %d)", ch.days))
	}
	if ch.samples < 1 || ch.samples > 100_000 {
		return usage(fmt.Errorf("samples must be 1 to 100000 (got %d)", ch.samples))
	}
	u, err := url.Parse(ch.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return usage(fmt.Errorf("clickhouse-http must be a url such as http://127.0.0.1:8123 (got %q)", ch.url))
	}
	if u.Path == "" {
		u.Path = "/"
	}
	u.RawQuery = url.Values{
		"database": {ch.database}, "param_app": {app}, "param_days": {strconv.Itoa(ch.days)}, "param_samples": {strconv.Itoa(ch.samples)},
		"readonly": {"2"}, "max_execution_time": {"60"}, "output_format_json_quote_64bit_integers": {"0"},
	}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(query+" FORMAT JSONCompactEachRow"))
	if err != nil {
		return fmt.Errorf("ask ClickHouse: %w", err)
	}
	if ch.user != "" {
		req.Header.Set("X-ClickHouse-User", ch.user)
		req.Header.Set("X-ClickHouse-Key", ch.password.Reveal())
	}
	client := http.Client{Timeout: 2 * time.Minute}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask ClickHouse: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return fmt.Errorf("ask ClickHouse: status %d: %s", res.StatusCode, bytes.TrimSpace(text))
	}
	dec := json.NewDecoder(res.Body)
	for dec.More() {
		if err := row(dec); err != nil {
			return fmt.Errorf("answer of ClickHouse: %w", err)
		}
	}
	return nil
}

// features counts the events of each feature.
func (ch *clickHouse) features(ctx context.Context, app string) (map[string]uint64, error) {
	used := map[string]uint64{}
	err := ch.rows(ctx, `SELECT feature_id, count() FROM events
		WHERE app_id = {app:String} AND received_at >= now() - INTERVAL {days:UInt32} DAY AND feature_id != '' GROUP BY feature_id`, app,
		func(dec *json.Decoder) error {
			var id string
			var n uint64
			if err := dec.Decode(&[]any{&id, &n}); err != nil {
				return err
			}
			used[id] = n
			return nil
		})
	return used, err
}

// flow is events of one kind and name that map to one feature now and to one
// feature then.
type flow struct {
	kind, event string
	from, to    string
	events      uint64
	estimate    bool // from samples, which were not all alike
}

// name of a call: its kind and event name.
type call struct{ kind, event string }

// flows says what becomes of the events of the last days: what the catalog in
// force, which may be nil, makes of them, and what the new one would.
func (ch *clickHouse) flows(ctx context.Context, app string, live, next *catalog.Catalog) ([]flow, error) {
	if live == nil {
		live = &catalog.Catalog{}
	}
	now, then := catalog.Compile(live), catalog.Compile(next)
	const usage = `app_id = {app:String} AND received_at >= now() - INTERVAL {days:UInt32} DAY AND kind IN ('track', 'page', 'screen', 'api_call')`
	total := map[call]uint64{}
	err := ch.rows(ctx, `SELECT kind, event, count() FROM events WHERE `+usage+` GROUP BY kind, event`, app, func(dec *json.Decoder) error {
		var c call
		var n uint64
		if err := dec.Decode(&[]any{&c.kind, &c.event, &n}); err != nil {
			return err
		}
		total[c] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Rules look at properties, so events are sampled; cityHash64 takes others
	// than the first ones in the table's order, and the same ones every time.
	type pair struct{ from, to string }
	sampled := map[call]map[pair]uint64{}
	err = ch.rows(ctx, `SELECT kind, event, toString(properties), context FROM events WHERE `+usage+`
		ORDER BY kind, event, cityHash64(message_id) LIMIT {samples:UInt32} BY kind, event`, app, func(dec *json.Decoder) error {
		var c call
		var properties, callContext string
		if err := dec.Decode(&[]any{&c.kind, &c.event, &properties, &callContext}); err != nil {
			return err
		}
		from, _ := now.Match(c.kind, c.event, []byte(properties), []byte(callContext))
		to, _ := then.Match(c.kind, c.event, []byte(properties), []byte(callContext))
		if sampled[c] == nil {
			sampled[c] = map[pair]uint64{}
		}
		sampled[c][pair{from.FeatureID, to.FeatureID}]++
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []flow
	for c, pairs := range sampled {
		seen := uint64(0)
		for _, n := range pairs {
			seen += n
		}
		for p, n := range pairs {
			out = append(out, flow{
				kind: c.kind, event: c.event, from: p.from, to: p.to,
				events: total[c] * n / max(seen, 1), estimate: len(pairs) > 1 && seen < total[c],
			})
		}
	}
	slices.SortFunc(out, func(a, b flow) int {
		return cmp.Or(-cmp.Compare(a.events, b.events), cmp.Compare(a.event, b.event), cmp.Compare(a.kind, b.kind), cmp.Compare(a.to, b.to))
	})
	return out, nil
}
