package clickhouse

import "fmt"

// CreateShared returns the statement that makes a small table of which, in the
// cluster form, every replica of every shard holds all rows: what is inserted
// anywhere is soon everywhere. It is for lists that a command joins with, and
// that it drops when it is done. columns and order are SQL.
func (f Form) CreateShared(database, name, columns, order string) string {
	d := dialect{f, database}
	engine := "MergeTree"
	if f.Cluster != "" {
		engine = "ReplicatedMergeTree('/clickhouse/tables/{uuid}/all', '{shard}-{replica}')"
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s (%s) ENGINE = %s ORDER BY %s", d.Table(name), d.onCluster(), columns, engine, order)
}

// DropShared returns the statement that takes it away.
func (f Form) DropShared(database, name string) string {
	d := dialect{f, database}
	return fmt.Sprintf("DROP TABLE IF EXISTS %s%s SYNC", d.Table(name), d.onCluster())
}

// Alter starts an ALTER of the tables that hold name's rows, on every shard.
func (f Form) Alter(database, name string) string {
	d := dialect{f, database}
	return "ALTER TABLE " + d.Local(name) + d.onCluster()
}

// ReloadDictionary returns the statement by which servers read a dictionary
// again.
func (f Form) ReloadDictionary(database, name string) string {
	d := dialect{f, database}
	return fmt.Sprintf("SYSTEM RELOAD DICTIONARY%s %s", d.onCluster(), d.Table(name))
}
