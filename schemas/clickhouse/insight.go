package clickhouse

import (
	"fmt"
	"maps"
)

// insight is what templates of views about usage are given: the dialect, and the
// SQL of each parameter. A view that fixes a parameter, as active_users fixes by,
// shares the template of the one that does not. Views share templates and not
// each other: ClickHouse plans a view anew at each level of views above it, and
// seven levels took half a second of CPU before the first row was read.
type insight struct {
	dialect
	words map[string]string
}

// Insight returns the parameters as they are given to the view.
func (d dialect) Insight() insight {
	return insight{d, map[string]string{
		"from": "{from:Date}", "to": "{to:Date}", "zone": "{zone:String}", "period": "{period:String}", "unit": "{unit:String}", "by": "{by:String}", "level": "{level:String}",
		"start": "{start:Array(String)}", "return": "{return:Array(String)}", "steps": "{steps:Array(String)}",
		"ordering": "{ordering:String}", "without": "{without:Array(String)}",
		"tries": "0", // of a funnel: whether it has ordering and without
		"agent": "0", // of bots: whether it says why
	}}
}

// With returns a copy in which a parameter is that SQL.
func (i insight) With(name, sql string) insight {
	words := maps.Clone(i.words)
	words[name] = sql
	return insight{i.dialect, words}
}

// P is the SQL of a parameter.
func (i insight) P(name string) (string, error) {
	sql, ok := i.words[name]
	if !ok {
		return "", fmt.Errorf("there is no parameter %s", name)
	}
	return sql, nil
}

// PeriodOf is the first day of the period that a day lies in.
func (i insight) PeriodOf(day string) string {
	return fmt.Sprintf("multiIf(%[2]s = 'day', %[1]s, %[2]s = 'week', toStartOfWeek(%[1]s, 1), %[2]s = 'sunday_week', toStartOfWeek(%[1]s, 0), "+
		"%[2]s = 'month', toStartOfMonth(%[1]s), toStartOfQuarter(%[1]s))", day, i.words["period"])
}

// AddPeriods is the first day of the period that begins n periods later.
func (i insight) AddPeriods(start, n string) string {
	return fmt.Sprintf("toDate(multiIf(%[3]s = 'day', %[1]s + %[2]s, %[3]s IN ('week', 'sunday_week'), %[1]s + 7 * %[2]s, "+
		"%[3]s = 'month', addMonths(%[1]s, %[2]s), addMonths(%[1]s, 3 * %[2]s)))", start, n, i.words["period"])
}

// PeriodsBetween is how many periods lie between the first days of two.
func (i insight) PeriodsBetween(start, end string) string {
	return fmt.Sprintf("multiIf(%[3]s = 'day', toInt32(%[2]s - %[1]s), %[3]s IN ('week', 'sunday_week'), toInt32(intDiv(%[2]s - %[1]s, 7)), "+
		"%[3]s = 'month', toInt32(dateDiff('month', %[1]s, %[2]s)), toInt32(intDiv(dateDiff('month', %[1]s, %[2]s), 3)))", start, end, i.words["period"])
}

// CheckPeriod fails the query for a period that does not exist.
func (i insight) CheckPeriod() string {
	return check(i.words["period"]+" NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter')", "period must be day, week, sunday_week, month or quarter")
}

// Unit is what is counted, as (kind, id): a person or an account.
func (i insight) Unit() string {
	return fmt.Sprintf("if(%s = 'account', ('account', account_id), (actor_kind, actor_id))", i.words["unit"])
}

// CheckUnit fails the query for a unit that does not exist, and leaves out usage
// without an account where accounts are counted.
func (i insight) CheckUnit() string {
	return check(i.words["unit"]+" NOT IN ('person', 'account')", "unit must be person or account") + " AND (" + i.words["unit"] + " = 'person' OR account_id != '')"
}

// Level is the id of a feature, or of its module or product.
func (i insight) Level() string {
	return fmt.Sprintf("multiIf(%[1]s = 'feature', feature_id, %[1]s = 'module', module_id, product_id)", i.words["level"])
}

// CheckLevel fails the query for a level that does not exist.
func (i insight) CheckLevel() string {
	return check(i.words["level"]+" NOT IN ('feature', 'module', 'product')", "level must be feature, module or product")
}

// Dimension is what usage is broken down by, of the rows of that alias that
// DimensionJoin joined with traits.
func (i insight) Dimension(alias string) string {
	if i.words["by"] == "''" {
		return "''"
	}
	return fmt.Sprintf("multiIf(%[2]s = 'product', %[1]s.product_id, %[2]s = 'module', %[1]s.module_id, %[2]s = 'feature', %[1]s.feature_id, "+
		"%[2]s = 'account', %[1]s.account_id, %[2]s = 'role', %[1]s.role, trait.value)", alias, i.words["by"])
}

// CheckDimension fails the query for a dimension that does not exist.
func (i insight) CheckDimension() string {
	if i.words["by"] == "''" {
		return "1"
	}
	return check(fmt.Sprintf("%[1]s NOT IN ('', 'product', 'module', 'feature', 'account', 'role') AND NOT startsWith(%[1]s, 'account.') AND NOT startsWith(%[1]s, 'user.')", i.words["by"]),
		"by must be product, module, feature, account, role, account.<trait>, user.<trait> or empty")
}

// CheckSteps fails the query for a funnel without steps or with too many.
func (i insight) CheckSteps() string {
	return check("length("+i.words["steps"]+") NOT BETWEEN 1 AND 8", "a funnel has 1 to 8 steps")
}

// Letters name an event of a funnel and those that follow it, as many as there may be steps.
func (i insight) Letters() []string { return []string{"a", "b", "c", "d", "e", "f", "g", "h"} }

// CheckOrdering fails the query for an order of steps that does not exist.
func (i insight) CheckOrdering() string {
	return check(i.words["ordering"]+" NOT IN ('ordered', 'any', 'strict')", "ordering must be ordered, any or strict")
}

func check(wrong, message string) string { return fmt.Sprintf("NOT throwIf(%s, '%s')", wrong, message) }

// WholeHour says whether all of an hour of UTC lies in one day of the zone. In
// zones that are off by half an hour or a quarter, an hour in which a day begins
// does not.
func (i insight) WholeHour(hour string) string {
	return fmt.Sprintf("toDate(%[1]s, %[2]s) = toDate(%[1]s + 3599, %[2]s)", hour, i.words["zone"])
}

// AnyPartHour says whether any day of the range begins within an hour of UTC: a
// constant, so that events are not read where it is false.
func (i insight) AnyPartHour() string {
	return fmt.Sprintf("arrayExists(i -> toUnixTimestamp(toDateTime(%[1]s + i, %[3]s)) %% 3600 != 0, range(toUInt32(%[2]s - %[1]s + 1)))", i.words["from"], i.words["to"], i.words["zone"])
}
