package catalogcli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// A new type is proposed for a key when, of at least suggestValues values, more than
// suggestShare are texts that do not fit its column. With fewer, one client may be
// wrong and not the first value.
const (
	suggestValues = 100
	suggestShare  = 0.9
)

// suggestion is a key whose first value was not typical.
type suggestion struct {
	path   string
	was    metadata.Type
	typ    metadata.Type // that would have a place for the texts
	texts  uint64        // under conflicts
	values uint64        // all of the key, in the column and under conflicts
	last   string        // text
}

// metadataSuggest proposes types for keys whose first value had a type that hardly any
// later one has, and with -apply pins them and recovers their values.
func (c *command) metadataSuggest(ctx context.Context, args []string) error {
	c.needsLog()
	r := recovery{app: &c.app}
	r.ch.flags(c.set, 0)
	c.set.StringVar(&r.table, "table", "events", "`table` to read and to repair; in a cluster the local one, shard by shard")
	apply := c.set.Bool("apply", false, "pin the proposed types and move the values from conflicts into the columns")
	author := c.set.String("author", "", "with -apply, `author` of the decision: a person or a role")
	var keys setting.Strings
	c.set.Var(&keys, "keys", "comma-separated `paths` of keys to check; empty: all")
	if _, err := c.parse(args); err != nil {
		return err
	}
	if *apply && *author == "" {
		return process.UsageError(errors.New("author must be given with -apply"))
	}
	a, err := c.loaded(ctx, &r)
	if err != nil {
		return err
	}
	defer a.Close()
	found, err := r.suggest(ctx, a.Entries(c.app), keys)
	if err != nil {
		return fmt.Errorf("suggest types of keys of %s: %w", c.app, err)
	}
	rows := []string{"key\tis\tsuggested\ttexts under conflicts\tof values\tthe last"}
	for _, s := range found {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%q", s.path, s.was, s.typ, s.texts, s.values, s.last))
	}
	if len(found) == 0 {
		rows = []string{"no key has enough texts under conflicts to suggest another type"}
	}
	if err := c.table(rows...); err != nil || !*apply {
		return err
	}
	for _, s := range found {
		reason := fmt.Sprintf("%d of %d values are texts that do not fit the type %s", s.texts, s.values, s.was)
		if err := a.Pin(ctx, metadata.Key{App: c.app, Path: s.path}, s.typ, *author, reason); err != nil {
			return err
		}
		if err := c.recoverKey(ctx, a, &r, s.path); err != nil {
			return err
		}
	}
	return nil
}

// numberPattern matches the texts that a float key accepts.
const numberPattern = `^"-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?"$`

// suggest returns the keys to propose, those with the most texts first. Pinned keys are
// ignored.
func (r *recovery) suggest(ctx context.Context, entries map[string]metadata.Entry, only []string) ([]suggestion, error) {
	since := ""
	if r.ch.days > 0 {
		since = " AND received_at >= now() - INTERVAL {days:UInt32} DAY"
	}
	type count struct{ texts, numbers, values uint64 }
	counts := map[string]*count{}
	var found []suggestion
	err := r.ch.rows(ctx, `SELECT replaceRegexpOne(kept.1, '#[0-9]+$', '') AS path, countIf(startsWith(kept.2, '"')), countIf(match(kept.2, '`+numberPattern+`')), count(),
			argMaxIf(kept.2, received_at, startsWith(kept.2, '"'))
		FROM (SELECT received_at, arrayJoin(JSONExtractKeysAndValuesRaw(conflicts)) AS kept FROM `+quoteName(r.table)+` WHERE app_id = {app:String} AND conflicts != ''`+since+`)
		GROUP BY path HAVING countIf(startsWith(kept.2, '"')) > `+fmt.Sprint(suggestShare*suggestValues)+` ORDER BY 2 DESC, path`, *r.app, func(dec *json.Decoder) error {
		var s suggestion
		var n count
		var last string
		if err := dec.Decode(&[]any{&s.path, &n.texts, &n.numbers, &n.values, &last}); err != nil {
			return err
		}
		e, known := entries[s.path]
		if !known || e.Pinned || e.Type == metadata.String || (len(only) > 0 && !slices.Contains(only, s.path)) {
			return nil
		}
		s.was, s.texts = e.Type, n.texts
		if json.Unmarshal([]byte(last), &s.last) != nil {
			s.last = last
		}
		counts[s.path] = &n
		found = append(found, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for path, n := range counts {
		stored, err := r.stored(ctx, path, since)
		if err != nil {
			return nil, err
		}
		n.values += stored
	}
	found = slices.DeleteFunc(found, func(s suggestion) bool {
		n := counts[s.path]
		return n.values < suggestValues || float64(n.texts) <= suggestShare*float64(n.values)
	})
	for i := range found {
		s := &found[i]
		n := counts[s.path]
		s.values, s.typ = n.values, metadata.String
		if float64(n.numbers) > suggestShare*float64(n.values) {
			s.typ = metadata.Float
		}
	}
	slices.SortFunc(found, func(a, b suggestion) int {
		return cmp.Or(-cmp.Compare(a.texts, b.texts), strings.Compare(a.path, b.path))
	})
	return found, nil
}

// stored counts the values of a key in its column, or in those of the keys below it.
func (r *recovery) stored(ctx context.Context, path, since string) (uint64, error) {
	object, keys, _ := strings.Cut(path, ".")
	body, err := r.ch.ask(ctx, `SELECT countIf(arrayExists(p -> p = {keys:String} OR startsWith(p, {keys:String} || '.'), JSONAllPaths(`+quoteName(object)+`)))
		FROM `+quoteName(r.table)+` WHERE app_id = {app:String}`+since+` FORMAT TSV`, url.Values{
		"param_app": {*r.app}, "param_days": {strconv.Itoa(r.ch.days)}, "param_keys": {keys}, "readonly": {"2"},
	}, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var n uint64
	if _, err := fmt.Fscan(body, &n); err != nil {
		return 0, fmt.Errorf("answer of ClickHouse: %w", err)
	}
	return n, nil
}
