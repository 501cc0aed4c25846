package loadgen

import (
	"flag"
	"fmt"
	"time"
)

// Flags binds the parts of a plan that people choose to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.Uint64Var(&c.Seed, "seed", c.Seed, "the plan's `seed`: equal seeds and settings send the same")
	set.Func("start", "first day of the traffic, `YYYY-MM-DD` (default "+c.Start.Format(time.DateOnly)+")", func(s string) error {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			return fmt.Errorf("must be a day like 2026-01-31: %w", err)
		}
		c.Start = at
		return nil
	})
	set.IntVar(&c.Days, "days", c.Days, "how many `days` of traffic")
	set.IntVar(&c.Accounts, "accounts", c.Accounts, "how many customer `accounts`")
	set.IntVar(&c.Events, "events", c.Events, "about how many good `events`")
	set.BoolVar(&c.Stories, "stories", c.Stories, "add accounts whose people use the product in different ways, that leave or grow, in the eight weeks before start and in the days")
	set.StringVar(&c.IDPrefix, "id-prefix", c.IDPrefix, "what every id starts with, so that two plans can share an app")
}
