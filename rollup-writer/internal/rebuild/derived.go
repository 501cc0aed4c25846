package rebuild

import (
	"context"
	"fmt"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/derived"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// LookDerived says how many rows of each table that is made from the rows of
// another would be written again; Removed are those that say what their source
// does not, and would be taken out.
func (s *Shard) LookDerived(ctx context.Context, app string) ([]Change, error) {
	var all []Change
	for i := range tables.DerivedTables {
		c, err := s.lookDerived(ctx, s.comparison(app, i))
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (s *Shard) comparison(app string, i int) *derived.Comparison {
	return &derived.Comparison{Table: &tables.DerivedTables[i], Schema: s.schema, App: app, Local: true}
}

func (s *Shard) lookDerived(ctx context.Context, d *derived.Comparison) (Change, error) {
	c := Change{Shard: s.Number, Table: d.Table.Name}
	query, err := d.Query()
	if err != nil {
		return c, err
	}
	err = s.conn.QueryRow(with(ctx), "SELECT countIf(less OR more), toInt64(countIf(less)), toInt64(countIf(more)) FROM ("+query+")").Scan(&c.Cells, &c.Added, &c.Removed)
	if err != nil {
		return c, fmt.Errorf("compare %s: %w", c.Table, err)
	}
	return c, nil
}

// RepairDerived makes these tables what their sources say. A row that says less is
// written again. One that says more is deleted first, and only when the run may
// shrink: the source may be what lost rows.
func (s *Shard) RepairDerived(ctx context.Context, app string) ([]Change, error) {
	var all []Change
	for i := range tables.DerivedTables {
		d := s.comparison(app, i)
		c, err := s.lookDerived(ctx, d)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		if c.Removed > 0 && !s.cfg.Shrink {
			return all, fmt.Errorf("%w: %s has %d rows that say what %s does not: if %[4]s has lost rows and the log still holds them, use -from-log; if these rows are wrong, use -shrink",
				ErrShrink, c.Table, c.Removed, d.Table.From)
		}
		if c.Cells == 0 {
			continue
		}
		if err := s.makeDerived(ctx, d, c); err != nil {
			return all, err
		}
		left, err := s.lookDerived(ctx, d)
		if err != nil {
			return all, err
		}
		if left.Cells > 0 {
			return all, fmt.Errorf("%s still differs in %d rows after it was repaired: is anything else writing into it?", c.Table, left.Cells)
		}
	}
	return all, nil
}

// makeDerived writes what differs into a table beside, deletes the rows that say
// too much by its keys, and inserts what is right. Cut short in between it leaves
// rows missing, which the next run writes.
func (s *Shard) makeDerived(ctx context.Context, d *derived.Comparison, c Change) error {
	query, err := d.Query()
	if err != nil {
		return err
	}
	name := d.Table.Name
	if err := s.startAside(ctx, name); err != nil {
		return err
	}
	app := clickhouse.Quote(d.App)
	columns, selected := d.Wanted()
	if c.Removed > 0 {
		if err := s.exec(ctx, "list what "+name+" has too much", "INSERT INTO "+s.aside(name)+" (app_id, "+d.Keys()+") SELECT "+app+", "+d.Keys()+" FROM ("+query+") WHERE more"); err != nil {
			return err
		}
		err := s.exec(ctx, "delete what "+name+" has too much", "ALTER TABLE "+s.local(name)+" DELETE WHERE app_id = "+app+" AND ("+d.Keys()+") IN (SELECT "+d.Keys()+" FROM "+s.aside(name)+
			") SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1")
		if err != nil {
			return err
		}
	}
	err = s.exec(ctx, "repair "+name, "INSERT INTO "+s.local(name)+" (app_id, "+columns+") SELECT "+app+", "+selected+" FROM ("+query+") WHERE less")
	if err != nil {
		return err
	}
	return s.dropAside(ctx, name)
}
