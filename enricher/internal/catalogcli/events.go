package catalogcli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// clickHouse queries a server about real events, over HTTP and read-only.
type clickHouse struct {
	url      string
	database string
	user     string
	password setting.Secret
	days     int
	least    int // of days
	samples  int
}

// flags adds the flags; days is how many days back to look by default, 0 for all.
func (ch *clickHouse) flags(set *flag.FlagSet, days int) {
	ch.least = min(days, 1)
	set.StringVar(&ch.url, "clickhouse-http", "", "`url` of ClickHouse's HTTP interface, to read real events; empty: none are read")
	set.StringVar(&ch.database, "clickhouse-database", "uptake", "`database` of the tables")
	set.StringVar(&ch.user, "clickhouse-user", "", "user `name`")
	set.Var(&ch.password, "clickhouse-password", "`password`, or file:PATH")
	set.IntVar(&ch.days, "days", days, "how many days of events to read; 0, where it is the default: all")
	set.IntVar(&ch.samples, "samples", 100, "events to sample per kind and name, where rules on properties decide")
}

// check returns the faults of the flags.
func (ch *clickHouse) check() error {
	var errs []error
	if ch.days < ch.least || ch.days > 36500 {
		errs = append(errs, fmt.Errorf("days must be %d to 36500 (got %d)", ch.least, ch.days))
	}
	if ch.samples < 1 || ch.samples > 100_000 {
		errs = append(errs, fmt.Errorf("samples must be 1 to 100000 (got %d)", ch.samples))
	}
	u, err := url.Parse(ch.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, fmt.Errorf("clickhouse-http must be a url such as http://127.0.0.1:8123 (got %q)", ch.url))
	}
	if len(errs) > 0 {
		return process.UsageError(errors.Join(errs...))
	}
	return nil
}

// ask sends a statement with settings and parameters, and data if it is an insert. The
// caller closes the response's body.
func (ch *clickHouse) ask(ctx context.Context, statement string, settings url.Values, data io.Reader) (io.ReadCloser, error) {
	if err := ch.check(); err != nil {
		return nil, err
	}
	u, err := url.Parse(ch.url)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	settings.Set("database", ch.database)
	body := io.Reader(strings.NewReader(statement))
	if data != nil {
		settings.Set("query", statement)
		body = data
	}
	u.RawQuery = settings.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	if ch.user != "" {
		req.Header.Set("X-ClickHouse-User", ch.user)
		req.Header.Set("X-ClickHouse-Key", ch.password.Reveal())
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("ask ClickHouse: status %d: %s", res.StatusCode, bytes.TrimSpace(text))
	}
	return res.Body, nil
}

// rows runs a read-only query with the parameters app, days and samples, and calls row
// with each row of the result.
func (ch *clickHouse) rows(ctx context.Context, query, app string, row func(*json.Decoder) error) error {
	body, err := ch.ask(ctx, query+" FORMAT JSONCompactEachRow", url.Values{
		"param_app": {app}, "param_days": {strconv.Itoa(ch.days)}, "param_samples": {strconv.Itoa(ch.samples)},
		"readonly": {"2"}, "output_format_json_quote_64bit_integers": {"0"},
	}, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for dec.More() {
		if err := row(dec); err != nil {
			return fmt.Errorf("answer of ClickHouse: %w", err)
		}
	}
	return nil
}

// do runs a statement without a result.
func (ch *clickHouse) do(ctx context.Context, statement string, settings url.Values, data io.Reader) error {
	body, err := ch.ask(ctx, statement, settings, data)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	return errors.Join(err, body.Close())
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

// flow is the events of one kind and name that map to one feature now and to one
// feature with the new version.
type flow struct {
	kind, event string
	from, to    string
	events      uint64
	estimate    bool // from samples that did not all map alike
}

// name of a call: its kind and event name.
type call struct{ kind, event string }

// flows returns how the events of the last days map with the catalog in force, which
// may be nil, and with the new one.
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
	// Rules look at properties, so events are sampled; cityHash64 selects others than
	// the first ones in the table's order, and the same ones every time.
	type pair struct{ from, to string }
	sampled := map[call]map[pair]uint64{}
	err = ch.rows(ctx, `SELECT kind, event, toString(properties), context, conflicts FROM events WHERE `+usage+`
		ORDER BY kind, event, cityHash64(message_id) LIMIT {samples:UInt32} BY kind, event`, app, func(dec *json.Decoder) error {
		var c call
		var columns, callContext, conflicts string
		if err := dec.Decode(&[]any{&c.kind, &c.event, &columns, &callContext, &conflicts}); err != nil {
			return err
		}
		properties := sentProperties(columns, conflicts)
		from, _ := now.Match(c.kind, c.event, properties, []byte(callContext))
		to, _ := then.Match(c.kind, c.event, properties, []byte(callContext))
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

// sentProperties returns the properties of an event as rules saw them on arrival: those
// in the columns, and those kept under conflicts.
func sentProperties(columns, conflicts string) []byte {
	doc := []byte(columns)
	var kept map[string]json.RawMessage
	if json.Unmarshal([]byte(conflicts), &kept) != nil {
		return doc
	}
	for path, value := range kept {
		keys, ok := strings.CutPrefix(path, metadata.Properties+".")
		if value = original(value); !ok || value == nil {
			continue
		}
		// A conflict may have the name of a key in the columns: rules saw the
		// conflict's value.
		if with, err := insert(doc, strings.Split(keys, "."), value); err == nil {
			doc = with
		}
	}
	return doc
}
