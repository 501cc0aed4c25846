package catalogcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
)

// metadataRecover moves values from conflicts into the columns, if they fit today's
// types.
//
// Rows are never changed in place: an update would read the JSON of a row as text and
// convert dates and 12.0 to 12. So the new rows are written to a table beside events;
// then the old rows are deleted from events and the parts of that table attached, which
// no view sees: rollups do not change. After an interruption the rows are in that
// table, and the next run continues from there.
func (c *command) metadataRecover(ctx context.Context, args []string) error {
	c.needsLog()
	r := recovery{app: &c.app}
	r.ch.flags(c.set, 0)
	c.set.StringVar(&r.table, "table", "events", "`table` to repair; in a cluster the local one, shard by shard")
	rest, err := c.parse(args, "PATH")
	if err != nil {
		return err
	}
	a, err := c.loaded(ctx, &r)
	if err != nil {
		return err
	}
	defer a.Close()
	return c.recoverKey(ctx, a, &r, rest[0])
}

// loaded returns the agreed types, once both the log and ClickHouse can be reached with
// the flags. The caller closes it.
func (c *command) loaded(ctx context.Context, r *recovery) (*metadata.Agreement, error) {
	a, err := c.agreement()
	if err != nil {
		return nil, err
	}
	if err = r.ch.check(); err == nil {
		err = a.Load(ctx)
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// recoverKey recovers the values of one key, with the types in a, and returns how many
// there were.
func (c *command) recoverKey(ctx context.Context, a *metadata.Agreement, r *recovery, path string) error {
	r.path, r.view = path, a.View()
	r.norm = metadata.New(metadata.DefaultLimits())
	if r.view.Type(metadata.Key{App: c.app, Path: r.path}) == metadata.None {
		return fmt.Errorf("%s of %s: %w", r.path, c.app, metadata.ErrUnknownKey)
	}
	done, err := r.run(ctx)
	if err != nil {
		return fmt.Errorf("recover %s of %s: %w", r.path, c.app, err)
	}
	fmt.Fprintf(c.stdout, "recovered %d values of %s of %s; %d stay under conflicts\n", done.recovered, r.path, c.app, done.kept)
	return nil
}

type recovery struct {
	ch    clickHouse
	app   *string
	table string
	path  string

	view *metadata.View
	norm *metadata.Normalizer
}

type recovered struct{ recovered, kept int }

// textSettings make ClickHouse read and write JSON without inferring types from text.
func textSettings() url.Values {
	return url.Values{"input_format_try_infer_dates": {"0"}, "input_format_try_infer_datetimes": {"0"}, "mutations_sync": {"2"}}
}

func (r *recovery) run(ctx context.Context) (recovered, error) {
	var done recovered
	name := quoteName(r.table)
	repaired, values := quoteName(r.table+"_recover"), quoteName(r.table+"_recover_values")
	partition, order, err := r.keys(ctx, r.table)
	if err != nil {
		return done, err
	}
	if order == "" {
		return done, fmt.Errorf("there is no table %s", r.table)
	}
	// A table left by an interrupted run is complete once its rows are deleted from
	// events, and useless before.
	if _, left, err := r.keys(ctx, r.table+"_recover"); err != nil {
		return done, err
	} else if left != "" {
		if err := r.swap(ctx, name, repaired); err != nil {
			return done, err
		}
	}
	create := func(table, columns, partition, order string) error {
		if err := r.ch.do(ctx, "DROP TABLE IF EXISTS "+table+" SYNC", url.Values{}, nil); err != nil {
			return err
		}
		by := ""
		if partition != "" {
			by = " PARTITION BY " + partition
		}
		return r.ch.do(ctx, "CREATE TABLE "+table+" "+columns+" ENGINE = MergeTree"+by+" ORDER BY ("+order+")", url.Values{}, nil)
	}
	if err := create(values, "(topic String, partition Int32, offset Int64, properties JSON(max_dynamic_paths = 256), traits JSON(max_dynamic_paths = 64), conflicts String)", "", "topic, partition, offset"); err != nil {
		return done, err
	}
	if done, err = r.fill(ctx, name, values); err != nil {
		return done, err
	}
	if done.recovered > 0 {
		// It has another name until it is complete: a run that is interrupted here
		// starts from the beginning.
		building := quoteName(r.table + "_recover_building")
		if err := create(building, "AS "+name, partition, order); err != nil {
			return done, err
		}
		if err := r.ch.do(ctx, `INSERT INTO `+building+` SELECT e.* REPLACE(v.properties AS properties, v.traits AS traits, v.conflicts AS conflicts)
			FROM `+name+` AS e INNER JOIN `+values+` AS v
			ON e.source_topic_id = v.topic AND e.source_partition = v.partition AND e.source_offset = v.offset`, textSettings(), nil); err != nil {
			return done, err
		}
		if err := r.ch.do(ctx, "RENAME TABLE "+building+" TO "+repaired, url.Values{}, nil); err != nil {
			return done, err
		}
		if err := r.swap(ctx, name, repaired); err != nil {
			return done, err
		}
	}
	return done, r.ch.do(ctx, "DROP TABLE "+values+" SYNC", url.Values{}, nil)
}

// keys returns the partition and sorting keys of a table; no sorting key if there
// is no such table.
func (r *recovery) keys(ctx context.Context, table string) (partition, order string, err error) {
	err = r.ch.rows(ctx, "SELECT partition_key, sorting_key FROM system.tables WHERE database = currentDatabase() AND name = "+quoteText(table), *r.app, func(dec *json.Decoder) error {
		return dec.Decode(&[]any{&partition, &order})
	})
	return partition, order, err
}

// swap deletes the rows in repaired from the table and attaches repaired's parts. It
// can be repeated, from any point.
func (r *recovery) swap(ctx context.Context, name, repaired string) error {
	if err := r.ch.do(ctx, "ALTER TABLE "+name+` DELETE WHERE (source_topic_id, source_partition, source_offset) IN (
		SELECT source_topic_id, source_partition, source_offset FROM `+repaired+")", textSettings(), nil); err != nil {
		return err
	}
	var ids []string
	err := r.ch.rows(ctx, "SELECT DISTINCT _partition_id FROM "+repaired, *r.app, func(dec *json.Decoder) error {
		var id string
		err := dec.Decode(&[]any{&id})
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.ch.do(ctx, "ALTER TABLE "+name+" ATTACH PARTITION ID "+quoteText(id)+" FROM "+repaired, url.Values{}, nil); err != nil {
			return err
		}
	}
	return r.ch.do(ctx, "DROP TABLE "+repaired+" SYNC", url.Values{}, nil)
}

// fillRows is how many rows are written to ClickHouse at once.
const fillRows = 10_000

// fill reads the rows that have a conflict at the path and writes their new form.
func (r *recovery) fill(ctx context.Context, name, values string) (recovered, error) {
	var done recovered
	var out bytes.Buffer
	rows := 0
	flush := func() error {
		if rows == 0 {
			return nil
		}
		rows = 0
		err := r.ch.do(ctx, "INSERT INTO "+values+" FORMAT JSONEachRow", textSettings(), io.Reader(bytes.NewReader(out.Bytes())))
		out.Reset()
		return err
	}
	since := ""
	if r.ch.days > 0 {
		since = " AND received_at >= now() - INTERVAL {days:UInt32} DAY"
	}
	err := r.ch.rows(ctx, `SELECT source_topic_id, source_partition, source_offset, toString(properties), toString(traits), conflicts FROM `+name+`
		WHERE app_id = {app:String}`+since+` AND JSONHas(conflicts, `+quoteText(r.path)+`)`, *r.app, func(dec *json.Decoder) error {
		var row struct {
			Topic      string          `json:"topic"`
			Partition  int32           `json:"partition"`
			Offset     int64           `json:"offset"`
			Properties json.RawMessage `json:"properties"`
			Traits     json.RawMessage `json:"traits"`
			Conflicts  string          `json:"conflicts"`
		}
		var properties, traits, conflicts string
		if err := dec.Decode(&[]any{&row.Topic, &row.Partition, &row.Offset, &properties, &traits, &conflicts}); err != nil {
			return err
		}
		var ok bool
		if row.Properties, row.Traits, row.Conflicts, ok = r.repair(properties, traits, conflicts); !ok {
			done.kept++
			return nil
		}
		done.recovered++
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		out.Write(append(line, '\n'))
		if rows++; rows < fillRows {
			return nil
		}
		return flush()
	})
	if err != nil {
		return done, err
	}
	return done, flush()
}

// repair returns the objects of a row with the value at the path in its column, and the
// remaining conflicts. It returns false when the value does not fit.
func (r *recovery) repair(properties, traits, conflicts string) (newProperties, newTraits json.RawMessage, newConflicts string, ok bool) {
	var kept map[string]json.RawMessage
	if json.Unmarshal([]byte(conflicts), &kept) != nil {
		return nil, nil, "", false
	}
	value := original(kept[r.path])
	object, keys, _ := strings.Cut(r.path, ".")
	docs := map[string]json.RawMessage{metadata.Properties: json.RawMessage(properties), metadata.Traits: json.RawMessage(traits)}
	doc, err := insert(docs[object], strings.Split(keys, "."), value)
	if value == nil || err != nil {
		return nil, nil, "", false
	}
	docs[object] = doc
	// The whole row goes through the normalizer: the stored text does not distinguish
	// 12.0 from 12.
	r.norm.Begin(r.view, *r.app)
	for _, o := range []string{metadata.Properties, metadata.Traits} {
		b, err := r.norm.Append(nil, o, docs[o])
		if err != nil || len(r.norm.Missing()) > 0 {
			return nil, nil, "", false
		}
		docs[o] = b
	}
	delete(kept, r.path)
	var again map[string]json.RawMessage
	if text := r.norm.AppendConflicts(nil); len(text) > 0 && json.Unmarshal(text, &again) != nil {
		return nil, nil, "", false
	}
	for path, v := range again {
		if _, taken := kept[path]; taken || path == r.path {
			return nil, nil, "", false
		}
		kept[path] = v
	}
	if len(kept) == 0 {
		return docs[metadata.Properties], docs[metadata.Traits], "", true
	}
	text := []byte{'{'}
	for i, path := range slices.Sorted(maps.Keys(kept)) {
		if i > 0 {
			text = append(text, ',')
		}
		key, err := json.Marshal(path)
		if err != nil {
			return nil, nil, "", false
		}
		text = append(append(append(text, key...), ':'), kept[path]...)
	}
	return docs[metadata.Properties], docs[metadata.Traits], string(append(text, '}')), true
}

// original returns a value of conflicts as it was sent; nil if it was not JSON.
func original(value json.RawMessage) json.RawMessage {
	var special map[string]string
	if json.Unmarshal(value, &special) != nil || len(special) != 1 {
		return value
	}
	if raw, ok := special["$raw"]; ok {
		if !json.Valid([]byte(raw)) {
			return nil
		}
		return json.RawMessage(raw)
	}
	if _, ok := special["$base64"]; ok {
		return nil
	}
	return value
}

// errTaken is the error of insert about a place that has a value.
var errTaken = errors.New("the place has a value")

// insert puts a value into an object, at a path of keys.
func insert(doc json.RawMessage, keys []string, value json.RawMessage) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(doc) > 0 {
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, err
		}
	}
	var err error
	if here, ok := members[keys[0]]; len(keys) > 1 {
		value, err = insert(here, keys[1:], value)
	} else if ok {
		err = errTaken
	}
	if err != nil {
		return nil, err
	}
	members[keys[0]] = value
	return json.Marshal(members)
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
