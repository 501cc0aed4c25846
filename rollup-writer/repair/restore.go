package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
)

// RestoreConfig says what to restore.
type RestoreConfig struct {
	From string
	// Erasures: enricher-state is not the topic of the backup, or shorter than it was, and
	// the operator says that it holds every erasure all the same.
	Erasures bool
}

// Restored is the report of a restore.
type Restored struct {
	From     string
	Manifest Manifest
	Rows     uint64           // in all tables
	Erased   []erase.Repeated // erasures applied, by app
	Starts   []RestoredStart
}

// RestoredStart is where writers start in a partition.
type RestoredStart struct {
	Boundary
	Replay int64 // end of the log: writers read up to it again
	// Lost are offsets that are neither in the backup nor in the log.
	Lost int64
}

// RestoreBackup puts a backup in the place of empty tables, while no writer runs, and has
// the writers start where it ends. Tables are restored into databases of their own, from
// which nobody reads; every erasure since the backup is applied to them there, and then
// they are moved. It may be run again after an interruption.
func RestoreBackup(ctx context.Context, cfg boundary.Config, what RestoreConfig, log *slog.Logger) (report *Restored, err error) {
	if err := single(&cfg); err != nil {
		return nil, err
	}
	if err := Migrate(ctx, cfg, log); err != nil {
		return nil, err
	}
	err = withLog(ctx, cfg, log, func(s *session) error {
		r := &restorer{session: s, what: what, to: s.cfg.ClickHouse.Schema(), report: &Restored{From: what.From}}
		r.aside = r.to
		r.aside.Database += "_restoring"
		report = r.report
		return r.run(ctx)
	})
	return report, err
}

type restorer struct {
	*session
	what      RestoreConfig
	to, aside tables.Schema
	report    *Restored
}

func (r *restorer) run(ctx context.Context) error {
	n, err := topic.Members(ctx, r.admin, r.names.GroupRollupWriter)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("group %s has %d running writers: stop them first", r.names.GroupRollupWriter, n)
	}
	if err := r.clear(ctx); err != nil {
		return err
	}
	var list []string
	for _, name := range append(stored(), manifestTable) {
		list = append(list, "TABLE "+r.to.Local(name)+" AS "+r.aside.Local(name))
	}
	if _, err := r.background(ctx, "RESTORE "+strings.Join(list, ", ")+" FROM "+destination(r.what.From)); err != nil {
		return fmt.Errorf("restore from %s: %w", r.what.From, err)
	}
	if err := r.readManifest(ctx); err != nil {
		return err
	}
	if err := r.starts(ctx); err != nil {
		return err
	}
	if err := r.erase(ctx); err != nil {
		return err
	}
	if err := r.move(ctx); err != nil {
		return err
	}
	if err := r.commitStarts(ctx); err != nil {
		return err
	}
	return r.drop(ctx)
}

// clear makes sure that nothing is overwritten, and removes what an interrupted restore
// left.
func (r *restorer) clear(ctx context.Context) error {
	var begun uint64
	if err := r.sql.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", r.aside.Database).Scan(&begun); err != nil {
		return fmt.Errorf("look for an earlier restore: %w", err)
	}
	for _, name := range content() {
		local := r.to.Local(name)
		if begun > 0 { // they were empty when it began
			if err := r.sql.Exec(ctx, "TRUNCATE TABLE "+local); err != nil {
				return fmt.Errorf("empty %s: %w", name, err)
			}
			continue
		}
		var rows uint64
		if err := r.sql.QueryRow(ctx, "SELECT count() FROM "+local).Scan(&rows); err != nil {
			return fmt.Errorf("count rows of %s: %w", name, err)
		}
		if rows > 0 {
			return fmt.Errorf("table %s has %d rows: a backup is restored into empty tables only; drop the databases %s and %s if they are to be replaced",
				name, rows, r.to.Database, tables.Internal(r.to.Database))
		}
	}
	if err := r.drop(ctx); err != nil {
		return err
	}
	for _, db := range []string{r.aside.Database, tables.Internal(r.aside.Database)} {
		if err := r.sql.Exec(ctx, "CREATE DATABASE `"+db+"`"); err != nil {
			return fmt.Errorf("create database %s: %w", db, err)
		}
	}
	return nil
}

// drop drops the databases in which a backup was restored, the one that says that a
// restore has begun last.
func (r *restorer) drop(ctx context.Context) error {
	for _, db := range []string{tables.Internal(r.aside.Database), r.aside.Database} {
		if err := r.sql.Exec(ctx, "DROP DATABASE IF EXISTS `"+db+"` SYNC"); err != nil {
			return fmt.Errorf("drop database %s: %w", db, err)
		}
	}
	return nil
}

// content are the tables with rows that are not about the schema.
func content() []string {
	return slices.DeleteFunc(stored(), func(name string) bool { return strings.HasPrefix(name, "schema_") })
}

func (r *restorer) readManifest(ctx context.Context) error {
	var text string
	if err := r.sql.QueryRow(ctx, "SELECT manifest FROM "+r.aside.Table(manifestTable)).Scan(&text); err != nil {
		return fmt.Errorf("%s has no manifest: it was not made by `rollup-writer backup`: %w", r.what.From, err)
	}
	if err := json.Unmarshal([]byte(text), &r.report.Manifest); err != nil {
		return fmt.Errorf("manifest of %s: %w", r.what.From, err)
	}
	var differ uint64
	query := "SELECT count() FROM (SELECT version, checksum FROM " + r.aside.Table("schema_migrations") + ") AS a FULL JOIN (SELECT version, checksum FROM " +
		r.to.Table("schema_migrations") + ") AS b USING (version, checksum) WHERE a.version = 0 OR b.version = 0"
	if err := r.sql.QueryRow(ctx, query).Scan(&differ); err != nil {
		return fmt.Errorf("compare migrations: %w", err)
	}
	if differ > 0 {
		return fmt.Errorf("the backup is of %s and has other migrations than this release: restore it with the release that made it, and run `rollup-writer migrate` of this one then", r.report.Manifest.MadeAt.Format("2006-01-02"))
	}
	return nil
}

// starts decides where writers start.
func (r *restorer) starts(ctx context.Context) error {
	state, err := boundary.Read(ctx, r.admin, r.names, boundary.Topics(r.names))
	if err != nil {
		return err
	}
	r.state = state
	at := map[Boundary]int64{}
	for _, b := range r.report.Manifest.Boundaries {
		at[Boundary{Topic: b.Topic, Partition: b.Partition}] = b.Offset
	}
	for _, name := range boundary.Topics(r.names) {
		for _, n := range state.Topics[name].Partitions.Numbers() {
			first, ok1 := state.First.Lookup(name, n)
			end, ok2 := state.End.Lookup(name, n)
			if !ok1 || !ok2 {
				return fmt.Errorf("%s/%d is not in the cluster", name, n)
			}
			st := RestoredStart{Boundary: Boundary{name, n, first.Offset}, Replay: end.Offset}
			switch o, ok := at[Boundary{Topic: r.names.Base(name), Partition: n}]; {
			case r.report.Manifest.Topics[r.names.Base(name)] != state.Topics[name].ID.String():
				// Another topic: what it holds is not in the backup.
			case !ok:
				return fmt.Errorf("the backup has no boundary of %s/%d", name, n)
			case o > end.Offset:
				return fmt.Errorf("the backup has %s/%d up to offset %d, and the log ends at %d: it was truncated", name, n, o, end.Offset)
			case o < first.Offset:
				st.Lost = first.Offset - o
			default:
				st.Offset = o
			}
			r.report.Starts = append(r.report.Starts, st)
		}
	}
	return nil
}

// erase applies the erasures since the backup.
func (r *restorer) erase(ctx context.Context) error {
	m := &r.report.Manifest
	id, ends, err := r.stateEnds(ctx)
	if err != nil {
		return err
	}
	known := id == m.Topics[r.names.Base(r.names.EnricherState)]
	for n, end := range m.StateEnds {
		known = known && ends[n] >= end
	}
	if !known && !r.what.Erasures {
		return fmt.Errorf("who was erased since the backup of %s is not known: %s is not the topic that was there then, or lost records. Put it back with `enricher state import`; "+
			"if it then holds every erasure that was ordered since, say so with -erasures-are-known", m.MadeAt.Format("2006-01-02 15:04"), r.names.EnricherState)
	}
	codec, err := r.cfg.Registry.Codec(ctx)
	if err != nil {
		return err
	}
	erased, err := erase.ReadErasures(ctx, r.client, r.names, codec)
	if err != nil {
		return err
	}
	// What was planned and not inserted is planned again by the next writer.
	for _, b := range m.Boundaries {
		if b.Topic != r.names.Base(r.names.Enriched) {
			continue
		}
		err := r.sql.Exec(ctx, fmt.Sprintf("%s DELETE WHERE source_topic_id = %s AND source_partition = %d AND source_offset >= %d SETTINGS mutations_sync = 2",
			r.aside.Alter("correction_plans"), clickhouse.Quote(m.Topics[r.names.Base(r.names.Enriched)]), b.Partition, b.Offset))
		if err != nil {
			return fmt.Errorf("delete plans of blocks that were not inserted: %w", err)
		}
	}
	for _, name := range content() {
		// The tables were backed up while they refused inserts.
		if err := r.sql.Exec(ctx, r.aside.Alter(name)+" RESET SETTING max_parts_in_total"); err != nil {
			return fmt.Errorf("settings of %s: %w", name, err)
		}
	}
	r.report.Erased, err = erase.Again(ctx, erased, erased.Apps(), erase.Dependencies{
		Logger: r.log, SQL: r.sql, Shards: []driver.Conn{r.sql}, Schema: r.aside, Kafka: r.client, Names: r.names, Codec: codec,
	}, r.how())
	return err
}

// how erasures are applied: if writers read the log from the backup on, its control records
// must find their rows, and in the end those that erase.
func (r *restorer) how() erase.How {
	same := r.report.Manifest.Topics[r.names.Base(r.names.Enriched)] == r.state.Topics[r.names.Enriched].ID.String()
	if same && r.report.Complete() {
		return erase.Masked
	}
	return erase.Alone
}

// move puts the restored rows into the tables, those that people read at the end.
func (r *restorer) move(ctx context.Context) error {
	names := content()
	slices.Reverse(names) // Tables begins with the events
	for _, name := range names {
		var rows uint64
		if err := r.sql.QueryRow(ctx, "SELECT count() FROM "+r.aside.Local(name)).Scan(&rows); err != nil {
			return fmt.Errorf("count rows of %s: %w", name, err)
		}
		if rows == 0 {
			continue
		}
		r.report.Rows += rows
		if err := r.sql.Exec(ctx, "ALTER TABLE "+r.to.Local(name)+" ATTACH PARTITION ALL FROM "+r.aside.Local(name)); err != nil {
			return fmt.Errorf("move the rows of %s: %w", name, err)
		}
	}
	return nil
}

func (r *restorer) commitStarts(ctx context.Context) error {
	var offsets kadm.Offsets
	for _, st := range r.report.Starts {
		generation, replay := unknownGeneration(), int64(0)
		if c, ok := r.state.Commits.Lookup(st.Topic, st.Partition); ok {
			if commit, err := block.ParseCommit(c.Metadata); err == nil {
				generation = commit.Generation + 1
			}
		}
		if st.Offset < st.Replay {
			replay = st.Replay
		}
		r.add(&offsets, st.Topic, st.Partition, st.Offset, generation, replay)
	}
	return r.commit(ctx, offsets)
}

// Complete reports whether nothing is missing between the backup and the log.
func (r *Restored) Complete() bool {
	return !slices.ContainsFunc(r.Starts, func(st RestoredStart) bool { return st.Lost > 0 })
}

// ErrLost means that a restore was completed and records between the backup and the log are
// lost; the report lists them.
var ErrLost = errors.New("records between the backup and the log are lost")

// WriteText writes the report for people.
func (r *Restored) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "restored %d rows from %s, made at %s\n", r.Rows, r.From, r.Manifest.MadeAt.Format("2006-01-02 15:04:05 MST"))
	for _, e := range r.Erased {
		fmt.Fprintf(&b, "app %s: %d users and %d anonymous ids that were erased since are erased\n", e.App, e.Users, e.AnonymousIDs)
	}
	for _, st := range r.Starts {
		fmt.Fprintf(&b, "%s/%d: writers start at offset %d and read %d offsets of the log again\n", st.Topic, st.Partition, st.Offset, st.Replay-st.Offset)
		if st.Lost > 0 {
			fmt.Fprintf(&b, "%s/%d: %d offsets before %d are neither in the backup nor in the log: they are lost\n", st.Topic, st.Partition, st.Lost, st.Offset)
		}
	}
	b.WriteString("\nnow start the writers; when they have caught up, run `rollup-writer audit`, and `rollup-writer erase -again` for each app of which anybody was erased\n")
	_, err := io.WriteString(w, b.String())
	return err
}
