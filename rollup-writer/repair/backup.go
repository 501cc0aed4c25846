package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Manifest says what a backup is of. It is stored in the backup, in the table manifestTable.
type Manifest struct {
	MadeAt time.Time `json:"made_at"`
	// Topics are the ids of the topics that were written to the tables, and of identity
	// state.
	Topics map[string]string `json:"topics"`
	// Boundaries: the tables hold every record before them, and none after them.
	Boundaries []Boundary `json:"boundaries"`
	// StateEnds are the ends of enricher-state, by partition: what was erased before them
	// is erased in the backup too.
	StateEnds map[int32]int64 `json:"enricher_state_ends"`
	Personal  string          `json:"personal_data"`
}

// Boundary is a commit of a partition.
type Boundary struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

const (
	manifestTable = "backup_manifest"
	personal      = "This backup holds personal data: events, ids and traits of people. Keep it as you keep the database, and delete it when your retention says so."
)

// Backup is what was made.
type Backup struct {
	To       string
	Paused   time.Duration // writers could not insert
	Bytes    uint64        // of the backup
	Manifest Manifest
}

// BackupName is the default name of a backup.
func BackupName(now time.Time) string {
	return "uptake-" + now.UTC().Format("20060102T150405Z") + "-personal-data.tar.gz"
}

// destination is a backup's place in ClickHouse's SQL: an expression such as
// S3('...') or Disk('...', '...') as it is, anything else the name of a file or of a
// directory in the server's backups.allowed_path.
func destination(to string) string {
	if kind, _, ok := strings.Cut(to, "("); ok && strings.HasSuffix(to, ")") {
		switch kind {
		case "File", "Disk", "S3", "AzureBlobStorage":
			return to
		}
	}
	return "File(" + clickhouse.Quote(to) + ")"
}

// The tables that blocks are inserted into, in the order in which a writer inserts into
// them. See partition.insert in package rollup.
var (
	beginsBlocks = []string{boundary.EventsTable, boundary.RejectedTable, "correction_plans"}
	endsBlocks   = []string{"corrections", boundary.CountsTable}
)

// MakeBackup has ClickHouse back up its tables while the writers stand at a boundary of
// every partition, together with these boundaries.
//
// Writers pause because ClickHouse refuses their inserts as it does when a table has too
// many parts: they wait and try again. First the tables that a block begins with refuse,
// so that blocks in progress end and are committed; when no row is beyond a commit, the
// others refuse too, and that is looked at again. What was planned and not yet inserted
// stays out (RestoreBackup deletes it).
func MakeBackup(ctx context.Context, cfg boundary.Config, to string, wait time.Duration, log *slog.Logger) (made *Backup, err error) {
	if err := single(&cfg); err != nil {
		return nil, err
	}
	err = withLog(ctx, cfg, log, func(s *session) error {
		made = &Backup{To: to}
		return s.backup(ctx, made, wait)
	})
	return made, err
}

// single refuses the cluster form.
func single(cfg *boundary.Config) error {
	if cfg.ClickHouse.Schema().Form.Cluster != "" || len(cfg.ClickHouse.Shards()) > 1 {
		return errors.New("backup and restore are for one server; in a cluster the replicas hold the data, and ClickHouse's BACKUP ... ON CLUSTER is to be run while the writers are stopped with SIGTERM")
	}
	return nil
}

func (s *session) backup(ctx context.Context, made *Backup, wait time.Duration) (err error) {
	schema := s.cfg.ClickHouse.Schema()
	defer func() { // whatever happens, writers go on
		err = errors.Join(err, s.refuse(context.WithoutCancel(ctx), false, beginsBlocks, endsBlocks))
	}()
	began := time.Now()
	if err := s.quiet(ctx, wait); err != nil {
		return err
	}
	m := &made.Manifest
	if *m, err = s.manifest(ctx); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	for _, q := range []string{
		schema.DropShared(manifestTable), schema.CreateShared(manifestTable, "manifest String", "tuple()"),
		"INSERT INTO " + schema.Table(manifestTable) + " VALUES (" + clickhouse.Quote(string(text)) + ")",
	} {
		if err := s.sql.Exec(ctx, q); err != nil {
			return fmt.Errorf("write the manifest: %w", err)
		}
	}
	defer func() {
		err = errors.Join(err, s.sql.Exec(context.WithoutCancel(ctx), schema.DropShared(manifestTable)))
	}()
	var all []string
	for _, name := range append(stored(), manifestTable) {
		all = append(all, "TABLE "+schema.Local(name))
	}
	if made.Bytes, err = s.background(ctx, "BACKUP "+strings.Join(all, ", ")+" TO "+destination(made.To)); err != nil {
		return fmt.Errorf("back up to %s: %w", made.To, err)
	}
	if err := s.refuse(ctx, false, beginsBlocks, endsBlocks); err != nil {
		return err
	}
	made.Paused = time.Since(began)
	return nil
}

// stored are the tables that hold rows.
func stored() []string {
	return tables.Names(tables.Select(func(t *tables.Table) bool { return !t.Plain }))
}

// refuse has tables refuse inserts, or accept them again.
func (s *session) refuse(ctx context.Context, refuse bool, lists ...[]string) error {
	change := " RESET SETTING max_parts_in_total"
	if refuse {
		change = " MODIFY SETTING max_parts_in_total = 0"
	}
	var errs []error
	for _, list := range lists {
		for _, name := range list {
			if err := s.sql.Exec(ctx, s.cfg.ClickHouse.Schema().Alter(name)+change); err != nil {
				errs = append(errs, fmt.Errorf("%s of %s: %w", strings.TrimSpace(change), name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// quiet returns when no block is half inserted and none can begin.
func (s *session) quiet(ctx context.Context, wait time.Duration) error {
	if err := s.refuse(ctx, true, beginsBlocks); err != nil {
		return err
	}
	ends := time.Now().Add(wait)
	for {
		open, err := s.openBlocks(ctx)
		if err != nil {
			return err
		}
		if open == "" {
			if err := s.refuse(ctx, true, endsBlocks); err != nil {
				return err
			}
			// A block could end between the look and this.
			if open, err = s.openBlocks(ctx); err != nil || open == "" {
				return err
			}
			if err := s.refuse(ctx, false, endsBlocks); err != nil {
				return err
			}
		}
		if time.Now().After(ends) {
			return fmt.Errorf("after %s %s: are the writers running, and is none halted? Nothing was backed up, and they go on", wait, open)
		}
		if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// openBlocks says what shows that a block is half inserted; empty: none is.
func (s *session) openBlocks(ctx context.Context) (string, error) {
	schema := s.cfg.ClickHouse.Schema()
	names := append(append([]string{}, beginsBlocks...), endsBlocks...)
	var running uint64
	err := s.sql.QueryRow(ctx, "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND is_initial_query AND arrayExists(t -> position(query, t) > 0, ["+
		"'"+strings.Join(names, "', '")+"'])").Scan(&running)
	if err != nil {
		return "", fmt.Errorf("look for running inserts: %w", err)
	}
	if running > 0 {
		return fmt.Sprintf("%d inserts of writers are running", running), nil
	}
	state, err := boundary.Read(ctx, s.admin, s.names, boundary.Topics(s.names))
	if err != nil {
		return "", err
	}
	for _, name := range boundary.Topics(s.names) {
		from := []string{boundary.Table(s.names, name)}
		if name == s.names.Enriched {
			from = append(from, endsBlocks...)
		}
		var selects []string
		for _, t := range from {
			selects = append(selects, "SELECT source_partition, source_offset FROM "+schema.Table(t)+" WHERE source_topic_id = "+clickhouse.Quote(state.Topics[name].ID.String()))
		}
		newest, err := tables.CollectMap[int32, int64](ctx, s.sql, "SELECT source_partition, max(source_offset) FROM ("+strings.Join(selects, " UNION ALL ")+") GROUP BY source_partition")
		if err != nil {
			return "", fmt.Errorf("look for rows beyond the commits: %w", err)
		}
		for n, at := range newest {
			if c, ok := state.Commits.Lookup(name, n); !ok || c.At <= at {
				return fmt.Sprintf("%s/%d has rows up to offset %d and is committed up to %d", name, n, at, c.At), nil
			}
		}
	}
	s.state = state
	return "", nil
}

// manifest is that of the present state, which stands.
func (s *session) manifest(ctx context.Context) (Manifest, error) {
	m := Manifest{MadeAt: time.Now().UTC().Truncate(time.Second), Topics: map[string]string{}, StateEnds: map[int32]int64{}, Personal: personal}
	for _, name := range boundary.Topics(s.names) {
		m.Topics[s.names.Base(name)] = s.state.Topics[name].ID.String()
		for _, n := range s.state.Topics[name].Partitions.Numbers() {
			c, ok := s.state.Commits.Lookup(name, n)
			if !ok || c.At < 0 {
				return m, fmt.Errorf("%s/%d has no commit: %s", name, n, boundary.RunInit)
			}
			m.Boundaries = append(m.Boundaries, Boundary{s.names.Base(name), n, c.At})
		}
	}
	id, ends, err := s.stateEnds(ctx)
	m.Topics[s.names.Base(s.names.EnricherState)], m.StateEnds = id, ends
	return m, err
}

// stateEnds are the id and the ends of enricher-state.
func (s *session) stateEnds(ctx context.Context) (id string, ends map[int32]int64, err error) {
	infos, err := s.names.Check(ctx, s.admin, s.names.EnricherState)
	if err != nil {
		return "", nil, err
	}
	listed, err := s.admin.ListEndOffsets(ctx, s.names.EnricherState)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return "", nil, fmt.Errorf("ends of %s: %w", s.names.EnricherState, err)
	}
	ends = map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return infos[s.names.EnricherState].ID.String(), ends, nil
}

// background runs a BACKUP or RESTORE on the server, which may take longer than a
// connection lasts, and returns its size.
func (s *session) background(ctx context.Context, statement string) (size uint64, err error) {
	var id, status string
	if err := s.sql.QueryRow(ctx, statement+" ASYNC").Scan(&id, &status); err != nil {
		return 0, err
	}
	for {
		var failed string
		err := s.sql.QueryRow(ctx, "SELECT toString(status), error, total_size FROM system.backups WHERE id = ?", id).Scan(&status, &failed, &size)
		switch {
		case err != nil:
			return 0, fmt.Errorf("ask how far it is: %w", err)
		case status == "BACKUP_CREATED", status == "RESTORED":
			return size, nil
		case strings.HasSuffix(status, "FAILED"), strings.HasSuffix(status, "CANCELLED"):
			return 0, fmt.Errorf("clickhouse: %s: %s", status, failed)
		}
		if err := backoff.Sleep(ctx, 100*time.Millisecond); err != nil {
			return 0, errors.Join(err, s.sql.Exec(context.WithoutCancel(ctx), "KILL QUERY WHERE query_id = "+clickhouse.Quote(id)+" ASYNC"))
		}
	}
}
