package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/test/loadgen"
)

// report is one table that the demo prints: a query whose columns are all made
// strings.
type report struct {
	title string
	query string // %s is the database; parameters {app}, {from} and {to}
}

func reports(p *loadgen.Plan) []report {
	from, to := p.Config.Start.Format(time.DateOnly), p.Config.Start.AddDate(0, 0, p.Config.Days).Format(time.DateOnly)
	where := fmt.Sprintf(" WHERE app_id = ? AND day >= '%s' AND day < '%s' ", from, to)
	return []report{
		{"Products, by accounts (account_product_daily)", `SELECT if(product_id = '', '(unmapped)', product_id) AS product,
			sum(events) AS events, uniqExact(account_id) AS accounts FROM %s.account_product_daily` + where + `GROUP BY product ORDER BY events DESC`},
		{"Modules, by accounts (account_module_daily)", `SELECT product_id AS product, if(module_id = '', '(unmapped)', module_id) AS module,
			sum(events) AS events, uniqExact(account_id) AS accounts FROM %s.account_module_daily` + where + `GROUP BY product, module ORDER BY events DESC`},
		{"Features, by accounts (account_feature_daily)", `SELECT module_id AS module, if(feature_id = '', '(unmapped)', feature_id) AS feature,
			sum(events) AS events, uniqExact(account_id) AS accounts FROM %s.account_feature_daily` + where + `GROUP BY module, feature ORDER BY events DESC`},
		{"Features, by users (user_feature_daily)", `SELECT if(feature_id = '', '(unmapped)', feature_id) AS feature, sum(events) AS events,
			uniqExactIf(actor_id, actor_kind = 'user') AS users, uniqExactIf(actor_id, actor_kind = 'anonymous') AS visitors
			FROM %s.user_feature_daily` + where + `GROUP BY feature ORDER BY events DESC`},
		{"Ten busiest accounts, by module (user_module_daily)", `SELECT account_id AS account, sum(events) AS total, uniqExact(actor_id) AS actors,
			sumIf(events, module_id = 'billing') AS billing, sumIf(events, module_id = 'invoicing') AS invoicing,
			sumIf(events, module_id = 'payments') AS payments, sumIf(events, module_id = 'loyalty') AS loyalty
			FROM %s.user_module_daily` + where + `GROUP BY account ORDER BY total DESC LIMIT 10`},
		{"The week, by products (user_product_daily)", `SELECT formatDateTime(day, '%%a %%F') AS date, sumIf(events, product_id = 'mypos_sales') AS sales,
			sumIf(events, product_id = 'mypos_commerce') AS commerce, sumIf(events, product_id = 'mypos_engage') AS engage,
			uniqExact(actor_id) AS actors, uniqExact(account_id) AS accounts FROM %s.user_product_daily` + where + `GROUP BY day ORDER BY day`},
		{"Rejected (rejected_events)", `SELECT code, field, count() AS events FROM %s.rejected_events WHERE app_id = ? GROUP BY code, field ORDER BY events DESC, code, field`},
	}
}

func (r report) print(ctx context.Context, conn driver.Conn, database, app string, w io.Writer) error {
	rows, err := conn.Query(ctx, "SELECT * APPLY (x -> toString(x)) FROM ("+fmt.Sprintf(r.query, database)+")", app)
	if err != nil {
		return fmt.Errorf("query %q: %w", r.title, err)
	}
	defer rows.Close()
	fmt.Fprintf(w, "\n%s\n\n", r.title)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	defer tw.Flush()
	return r.body(rows, tw)
}

func (r report) body(rows driver.Rows, tw io.Writer) error {
	columns := rows.Columns()
	values := make([]any, len(columns))
	texts := make([]string, len(columns))
	for i := range texts {
		values[i] = &texts[i]
	}
	for i, c := range columns {
		columns[i] = strings.TrimSuffix(strings.TrimPrefix(c, "toString("), ")")
	}
	fmt.Fprintln(tw, "  "+strings.Join(columns, "\t"))
	for rows.Next() {
		if err := rows.Scan(values...); err != nil {
			return fmt.Errorf("query %q: %w", r.title, err)
		}
		fmt.Fprintln(tw, "  "+strings.Join(texts, "\t"))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("query %q: %w", r.title, err)
	}
	return nil
}
