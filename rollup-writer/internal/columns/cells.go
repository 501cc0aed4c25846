package columns

import "strconv"

// Cells is a block of a table of signed sums, for what repairs it: of any key, by
// the names of its columns. ClickHouse converts their types to the table's.
type Cells struct {
	block

	appID            dict
	key              []cellColumn
	events, quantity longs
}

type cellColumn struct {
	of      func(*Signed) *string // nil: a number
	text    *text
	seconds *seconds
	ints    *ints
}

// NewCells returns an empty block of a table with this key beside the app.
func NewCells(key []string) *Cells {
	c := &Cells{}
	c.add("app_id", &c.appID)
	for _, name := range key {
		k := cellColumn{}
		switch name {
		case "hour", "day":
			k.seconds = &seconds{}
			c.add(name, k.seconds)
		case "source_partition":
			k.ints = &ints{}
			c.add(name, k.ints)
		default:
			k.text, k.of = &text{}, attributionOf(name)
			c.add(name, k.text)
		}
		c.key = append(c.key, k)
	}
	c.add("events", &c.events)
	c.add("quantity", &c.quantity)
	return c
}

func attributionOf(name string) func(*Signed) *string {
	for _, c := range AttributionColumns {
		if c.Name == name {
			return func(s *Signed) *string { return c.Of(&s.Attribution) }
		}
	}
	panic("no column " + name + " in an attribution") // only keys of declared tables are asked for
}

// AsIs says that rows are stored as they are sent: see [clickhouse.AsIs].
func (c *Cells) AsIs() {}

// Append adds a row with other sums than those of s.
func (c *Cells) Append(app string, partition int32, s *Signed, events, quantity int64) {
	c.appID.appendString(app)
	for i := range c.key {
		switch k := &c.key[i]; {
		case k.of != nil:
			k.text.appendString(*k.of(s))
		case k.ints != nil:
			k.ints.Append(partition)
		case c.columnName(i) == "day":
			k.seconds.Append(s.Hour - s.Hour%86400)
		default:
			k.seconds.Append(s.Hour)
		}
	}
	c.events.appendLong(events)
	c.quantity.appendLong(quantity)
}

func (c *Cells) columnName(i int) string { return c.input[i+1].Name }

// CellKey tells cells of a table with a key apart; CellKeyQuery gives the same in SQL.
func CellKey(key []string, app string, partition int32, s *Signed) string {
	b := []byte(app)
	for _, name := range key {
		b = append(b, 0)
		switch name {
		case "hour":
			b = strconv.AppendUint(b, uint64(s.Hour), 10)
		case "day":
			b = strconv.AppendUint(b, uint64(s.Hour-s.Hour%86400), 10)
		case "source_partition":
			b = strconv.AppendInt(b, int64(partition), 10)
		default:
			b = append(b, *attributionOf(name)(s)...)
		}
	}
	return string(b)
}

// CellKeyQuery is CellKey as an expression over the columns.
func CellKeyQuery(key []string) string {
	q := "concat(toString(app_id)"
	for _, name := range key {
		switch name {
		case "hour":
			q += ", '\\0', toString(toUnixTimestamp(hour))"
		case "day":
			q += ", '\\0', toString(toUnixTimestamp(toDateTime(day, 'UTC')))"
		default:
			q += ", '\\0', toString(" + name + ")"
		}
	}
	return q + ")"
}
