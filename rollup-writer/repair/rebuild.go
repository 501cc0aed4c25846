package repair

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// RebuildConfig says what to rebuild.
type RebuildConfig struct {
	App      string
	From, To time.Time // of event time, widened to whole UTC days; zero: no bound
	FromLog  bool      // also events, from what the log still holds
	Shrink   bool      // counts may be removed
	DryRun   bool
	// ChunkRows bounds how many rows are compared at once; days are never split.
	ChunkRows int

	step func(what string) error // of tests
}

// DefaultRebuildConfig names no app yet.
func DefaultRebuildConfig() RebuildConfig { return RebuildConfig{ChunkRows: 5_000_000} }

// Flags defines the settings as flags of set.
func (c *RebuildConfig) Flags(set *flag.FlagSet) {
	set.StringVar(&c.App, "app", c.App, "rebuild the app with this `id`")
	set.Func("from", "first `day` of event time to rebuild: 2026-11-21, or an instant of that day, 2026-11-21T15:00:00Z; default: the first day with events", instantFlag(&c.From))
	set.Func("to", "`day` of event time to stop before; an instant within a day includes all of that day; default: after the last day with events", instantFlag(&c.To))
	set.BoolVar(&c.FromLog, "from-log", c.FromLog, "first restore rows of events that are missing and still in the log, and remove those that it has twice")
	set.BoolVar(&c.Shrink, "shrink", c.Shrink, "also remove counts from rollups that events does not account for")
	set.BoolVar(&c.DryRun, "dry-run", c.DryRun, "report what would change, and change nothing")
	set.IntVar(&c.ChunkRows, "chunk-rows", c.ChunkRows, "compare days together up to this many rows")
}

func instantFlag(t *time.Time) func(string) error {
	return func(s string) error {
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if at, err := time.Parse(layout, s); err == nil {
				*t = at.UTC()
				return nil
			}
		}
		return errors.New("want a date or a time with its zone, 2026-11-21 or 2026-11-21T15:00:00Z")
	}
}

// Validate reports all faults.
func (c *RebuildConfig) Validate() error {
	var errs []error
	if c.App == "" {
		errs = append(errs, errors.New("app must be set"))
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To) {
		errs = append(errs, fmt.Errorf("from must be before to (got %s and %s)", c.From.Format(time.RFC3339), c.To.Format(time.RFC3339)))
	}
	if c.ChunkRows < 1 {
		errs = append(errs, fmt.Errorf("chunk-rows must be > 0 (got %d)", c.ChunkRows))
	}
	return errors.Join(errs...)
}

// RebuildReport is what a rebuild changed, or would change.
type RebuildReport struct {
	Range   rebuild.Range
	DryRun  bool
	Changes []rebuild.Change
	Done    bool // the rebuild was completed
	// LogFrom are the offsets at which the log still begins, by partition; records lost
	// before them cannot be restored. Nil without -from-log.
	LogFrom map[int32]int64
	// Nameless counts events that are restored from the log without the identity of a
	// person who was erased since.
	Nameless uint64
}

// Rebuild repairs the tables of an app while no writer runs. It marks the group's
// commits first, so that a writer that is started refuses until the rebuild is done,
// and starts a new generation of tokens at the end. It may be run again after any
// interruption.
func Rebuild(ctx context.Context, cfg boundary.Config, what RebuildConfig, log *slog.Logger) (report *RebuildReport, err error) {
	if err := what.Validate(); err != nil {
		return nil, err
	}
	err = withLog(ctx, cfg, log, func(s *session) error {
		r := &rebuilder{session: s, what: what, span: rebuild.NewRange(what.App, what.From, what.To)}
		r.report = &RebuildReport{Range: r.span, DryRun: what.DryRun}
		report = r.report
		return r.run(ctx)
	})
	return report, err
}

type rebuilder struct {
	*session
	what   RebuildConfig
	span   rebuild.Range
	report *RebuildReport

	commits    map[int32]block.Commit
	boundaries rebuild.Boundaries
	shards     []*rebuild.Shard
}

func (r *rebuilder) run(ctx context.Context) (err error) {
	if err := r.readCommits(ctx); err != nil {
		return err
	}
	if r.what.FromLog { // before anything is marked
		if err := erase.Known(ctx, r.client, r.names); err != nil {
			return err
		}
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	defer func() {
		for _, s := range r.shards {
			err = errors.Join(err, s.Close())
		}
	}()
	if r.what.DryRun {
		return r.look(ctx)
	}
	if err := r.mark(ctx, func(c *block.Commit) { c.Clean, c.Rebuild = false, true }); err != nil {
		return err
	}
	for _, s := range r.shards {
		err := s.Quiet(ctx, func(n uint64) {
			r.log.Info("clickhouse still works on statements of a writer or of an earlier rebuild; waiting", "shard", s.Number, "statements", n)
		})
		if err != nil {
			return fmt.Errorf("shard %d: %w", s.Number, err)
		}
		if err := r.repair(ctx, s); err != nil { // after any error, another run can complete it
			err = fmt.Errorf("shard %d: %w", s.Number, err)
			if errors.Is(err, rebuild.ErrShrink) {
				// No change is left in part: writers may start again.
				return errors.Join(err, r.finish(ctx))
			}
			return fmt.Errorf("%w; writers refuse to begin until the rebuild was run to its end", err)
		}
	}
	if err := r.finish(ctx); err != nil {
		return err
	}
	r.report.Done = true
	return nil
}

// finish lets writers start again, with tokens of a new generation.
func (r *rebuilder) finish(ctx context.Context) error {
	return r.mark(ctx, func(c *block.Commit) { c.Clean, c.Rebuild, c.Generation = true, false, c.Generation+1 })
}

// readCommits makes sure that no writer runs and that no block is open.
func (r *rebuilder) readCommits(ctx context.Context) error {
	members, err := topic.Members(ctx, r.admin, r.names.GroupRollupWriter)
	if err != nil {
		return err
	}
	if members > 0 {
		if !r.what.DryRun {
			return fmt.Errorf("group %s has %d running writers: stop them first, with SIGTERM, and make sure that their processes have ended", r.names.GroupRollupWriter, members)
		}
		r.log.Warn("writers are running: what they are inserting now shows as different", "writers", members)
	}
	r.boundaries = rebuild.Boundaries{TopicID: r.state.Topics[r.names.Enriched].ID.String(), At: map[int32]int64{}}
	r.commits = map[int32]block.Commit{}
	var errs, open []error
	for n := range r.state.Topics[r.names.Enriched].Partitions {
		c, ok := r.state.Commits.Lookup(r.names.Enriched, n)
		if !ok || c.At < 0 {
			errs = append(errs, fmt.Errorf("%s/%d has no commit: %s, or begin with `rollup-writer init -reset`", r.names.Enriched, n, boundary.RunInit))
			continue
		}
		commit, err := block.ParseCommit(c.Metadata)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("commit of %s/%d: %w: begin with `rollup-writer init -reset`", r.names.Enriched, n, err))
		case commit.TopicID != r.boundaries.TopicID:
			errs = append(errs, fmt.Errorf("commit of %s/%d belongs to topic id %s: the topic was deleted and created again; begin with `rollup-writer init -reset`", r.names.Enriched, n, commit.TopicID))
		case !commit.Clean && !commit.Rebuild && !r.what.DryRun:
			open = append(open, fmt.Errorf("%s/%d", r.names.Enriched, n))
		case commit.Rebuild:
			r.log.Warn("an earlier rebuild was cut short, perhaps of another app or other days: see `rollup-writer audit` afterwards", "partition", n)
		}
		r.commits[n] = commit
		r.boundaries.At[n] = c.At
	}
	if len(open) > 0 {
		names := strings.ReplaceAll(errors.Join(open...).Error(), "\n", ", ")
		errs = append(errs, fmt.Errorf("the last writer of %s did not end in good order, so that a block may be in some tables only: "+
			"start a writer, let it catch up, stop it with SIGTERM, and rebuild then; "+
			"if its partition is halted and cannot be repaired, set its boundary with `rollup-writer init -reset`, which loses nothing that -from-log cannot put back", names))
	}
	return errors.Join(errs...)
}

// mark commits the boundaries again with other metadata.
func (r *rebuilder) mark(ctx context.Context, change func(*block.Commit)) error {
	var offsets kadm.Offsets
	for n, c := range r.commits {
		change(&c)
		r.commits[n] = c
		offsets.Add(kadm.Offset{Topic: r.names.Enriched, Partition: n, At: r.boundaries.At[n], LeaderEpoch: -1, Metadata: c.Metadata()})
	}
	return r.commit(ctx, offsets)
}

func (r *rebuilder) open(ctx context.Context) error {
	cfg := rebuild.Config{Shrink: r.what.Shrink, FromLog: r.what.FromLog, ChunkRows: r.what.ChunkRows, Step: r.what.step}
	for n := range r.cfg.ClickHouse.Shards() {
		ask, cancel := boundary.Uncut(ctx)
		s, err := rebuild.Open(ask, cfg, r.cfg.ClickHouse, n)
		cancel()
		if err != nil {
			return err
		}
		r.shards = append(r.shards, s)
		if err := s.Sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// look fills the report with what would change.
func (r *rebuilder) look(ctx context.Context) error {
	var shrunk []error
	for _, s := range r.shards {
		if r.what.FromLog {
			twice, err := s.Doubles(ctx, r.span)
			if err != nil {
				return err
			}
			lacks := rebuild.Change{Shard: s.Number, Table: "events"}
			err = r.missing(ctx, s, func(context.Context, columns.Source, int64, *event.EnrichedEvent, int) error {
				lacks.Cells++
				lacks.Added++
				return nil
			})
			if err != nil {
				return err
			}
			r.report.Changes = append(r.report.Changes, rebuild.Change{
				Shard: s.Number, Table: "events", Cells: twice.Cells + lacks.Cells, Added: lacks.Added, Removed: twice.Removed,
			})
		}
		if r.what.FromLog {
			if err := r.orders(ctx, s); err != nil {
				return err
			}
		}
		changes, err := s.Look(ctx, r.span, r.boundaries)
		r.report.Changes = append(r.report.Changes, changes...)
		made, err2 := s.LookDerived(ctx, r.span.App)
		r.report.Changes = append(r.report.Changes, made...)
		if err2 != nil {
			return err2
		}
		switch {
		case errors.Is(err, rebuild.ErrShrink):
			shrunk = append(shrunk, err)
		case err != nil:
			return err
		}
	}
	if r.what.FromLog {
		return nil // the rollups were compared with the present events
	}
	return errors.Join(shrunk...)
}

func (r *rebuilder) repair(ctx context.Context, s *rebuild.Shard) error {
	if r.what.FromLog {
		twice, err := s.RepairDoubles(ctx, r.span)
		if err != nil {
			return err
		}
		m, err := s.StartMissing(ctx)
		if err != nil {
			return err
		}
		defer m.Close()
		if err := r.missing(ctx, s, m.Add); err != nil {
			return err
		}
		lacks, err := m.Attach(ctx)
		if err != nil {
			return err
		}
		r.report.Changes = append(r.report.Changes, rebuild.Change{
			Shard: s.Number, Table: "events", Cells: twice.Cells + lacks.Cells, Added: lacks.Added, Removed: twice.Removed,
		})
		if err := r.orders(ctx, s); err != nil {
			return err
		}
		r.log.Info("rows of events were restored", "rows", lacks.Added, "doubles", twice.Removed)
	}
	changes, err := s.Repair(ctx, r.span, r.boundaries)
	r.report.Changes = append(r.report.Changes, changes...)
	if err != nil {
		return err
	}
	changes, err = s.RepairDerived(ctx, r.span.App)
	r.report.Changes = append(r.report.Changes, changes...)
	return err
}

// missing calls each for every record of the range, below the boundaries of the shard's
// partitions, that the log has and events lacks. Those of a person who was erased since
// come without the erased fields.
func (r *rebuilder) missing(ctx context.Context, s *rebuild.Shard, each func(context.Context, columns.Source, int64, *event.EnrichedEvent, int) error) error {
	codec, err := r.cfg.Registry.Codec(ctx)
	if err != nil {
		return err
	}
	skips, err := r.cfg.Skips()
	if err != nil {
		return err
	}
	forgotten, err := erase.ReadForgotten(ctx, r.client, r.names, codec, r.span.App)
	if err != nil {
		return fmt.Errorf("read who was erased: %w", err)
	}
	if r.report.LogFrom == nil {
		r.report.LogFrom = map[int32]int64{}
	}
	for _, n := range r.numbers(s) {
		first, ok := r.state.First.Lookup(r.names.Enriched, n)
		if !ok {
			return fmt.Errorf("%s/%d is not in the cluster", r.names.Enriched, n)
		}
		r.report.LogFrom[n] = first.Offset
		end := r.boundaries.At[n]
		if first.Offset >= end {
			continue
		}
		have, err := s.Present(ctx, r.span.App, r.boundaries.TopicID, n, first.Offset, end)
		if err != nil {
			return err
		}
		src := columns.Source{TopicID: r.boundaries.TopicID, Partition: n}
		var e event.EnrichedEvent
		err = partitions(r.client).Span(ctx, r.names.Enriched, n, first.Offset, end, func(rec *kgo.Record) error {
			if have.Has(rec.Offset) || skips[boundary.Place{Topic: r.names.Enriched, Partition: n, Offset: rec.Offset}] {
				return nil
			}
			typ, err := codec.Type(rec.Value)
			if err == nil && typ != event.TypeEnriched {
				return nil
			}
			if err == nil {
				err = codec.DecodeEnriched(rec.Value, &e)
			}
			if event.Unwritten(err) {
				return nil // set aside
			}
			if err != nil {
				return fmt.Errorf("%s/%d offset %d: %w: give the -skip-records that writers have", r.names.Enriched, n, rec.Offset, err)
			}
			if e.AppID != r.span.App || !r.span.Holds(event.ToTime(e.EventTime)) {
				return nil
			}
			if forgotten.Scrub(&e) {
				r.report.Nameless++
			}
			return each(ctx, src, rec.Offset, &e, len(rec.Value))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteText writes the report as text.
func (r *RebuildReport) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tTABLE\tCELLS\tADDED\tTAKEN OUT")
	changed := false
	for _, c := range r.Changes {
		changed = changed || c.Cells > 0
		fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\n", c.Shard, c.Table, c.Cells, c.Added, c.Removed)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	if r.LogFrom != nil {
		b.WriteString("\nthe log still has, by partition:")
		for _, n := range slices.Sorted(maps.Keys(r.LogFrom)) {
			fmt.Fprintf(&b, " %d from offset %d on;", n, r.LogFrom[n])
		}
		b.WriteString("\n")
	}
	if r.Nameless > 0 {
		fmt.Fprintf(&b, "\n%d of these events named persons who were erased since; they are restored without the erased fields\n", r.Nameless)
	}
	days := "all days"
	if !r.Range.First.IsZero() || !r.Range.End.IsZero() {
		days = "days " + dateOf(r.Range.First) + " to before " + dateOf(r.Range.End)
	}
	switch {
	case r.DryRun && changed:
		fmt.Fprintf(&b, "\napp %s, %s: dry run, nothing was changed; these changes would be made\n", r.Range.App, days)
	case !r.Done:
		fmt.Fprintf(&b, "\napp %s, %s: not completed; found so far\n", r.Range.App, days)
	case changed:
		fmt.Fprintf(&b, "\napp %s, %s: repaired; `rollup-writer audit -app %s` must report equal now\n", r.Range.App, days, r.Range.App)
	default:
		fmt.Fprintf(&b, "\napp %s, %s: nothing to repair\n", r.Range.App, days)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func dateOf(t time.Time) string {
	if t.IsZero() {
		return "any"
	}
	return t.Format(time.DateOnly)
}
