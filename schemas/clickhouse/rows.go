package clickhouse

import (
	"context"
	"errors"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Each calls do for each row of a query, in order. columns returns the places in
// a row's value that the columns are scanned into; every row has a value of its
// own. With an error, do may have been called for the rows before it. A row loop
// written by hand tends to miss one of the three errors: that of Scan, that which
// ended the rows, that of Close.
func Each[T any](ctx context.Context, conn driver.Conn, columns func(*T) []any, do func(*T), query string, args ...any) (err error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		row := new(T)
		if err := rows.Scan(columns(row)...); err != nil {
			return err
		}
		do(row)
	}
	return rows.Err()
}

// Collect returns the rows of a query; columns is that of [Each].
func Collect[T any](ctx context.Context, conn driver.Conn, columns func(*T) []any, query string, args ...any) ([]T, error) {
	var list []T
	if err := Each(ctx, conn, columns, func(row *T) { list = append(list, *row) }, query, args...); err != nil {
		return nil, err
	}
	return list, nil
}

// CollectColumn returns the rows of a query of one column.
func CollectColumn[T any](ctx context.Context, conn driver.Conn, query string, args ...any) ([]T, error) {
	return Collect(ctx, conn, func(t *T) []any { return []any{t} }, query, args...)
}

// CollectMap returns the rows of a query of two columns, of which the first is the
// key. Of two rows of one key the last counts.
func CollectMap[K comparable, V any](ctx context.Context, conn driver.Conn, query string, args ...any) (map[K]V, error) {
	type entry struct {
		key   K
		value V
	}
	m := map[K]V{}
	err := Each(ctx, conn, func(e *entry) []any { return []any{&e.key, &e.value} }, func(e *entry) { m[e.key] = e.value }, query, args...)
	if err != nil {
		return nil, err
	}
	return m, nil
}
