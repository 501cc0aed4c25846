package analytics

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"
)

// Row is one row of an answer, each value as [Format] writes it.
type Row []string

// Format writes a value the way that rows of both sides are compared in.
func Format(v any) string {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) {
			return "NaN"
		}
		return fmt.Sprintf("%.7g", v)
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.000000")
	case []string:
		return "[" + strings.Join(v, ",") + "]"
	case bool:
		if v {
			return "1"
		}
		return "0"
	}
	return fmt.Sprint(v)
}

func row(values ...any) Row {
	r := make(Row, len(values))
	for i, v := range values {
		if p, ok := v.(*float64); ok {
			if p == nil {
				r[i] = "NULL"
				continue
			}
			v = *p
		}
		if p, ok := v.(*time.Time); ok {
			if p == nil {
				r[i] = "NULL"
				continue
			}
			v = *p
		}
		r[i] = Format(v)
	}
	return r
}

func ratio(a, b int) *float64 {
	if b == 0 {
		return nil
	}
	x := float64(a) / float64(b)
	return &x
}

// quantile is the inclusive one: linear between the nearest two of the sorted values.
func quantile(q float64, xs []float64) *float64 {
	if len(xs) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(xs))
	at := q * float64(len(s)-1)
	lo := int(math.Floor(at))
	hi := min(lo+1, len(s)-1)
	x := s[lo] + (at-float64(lo))*(s[hi]-s[lo])
	return &x
}

// Who is a person: kind and id.
type Who struct{ Kind, ID string }

// Oracle answers questions about a world.
type Oracle struct {
	w        *World
	zone     *time.Location
	from, to int            // days since 1970, to exclusive
	bots     map[Who]string // for whom usage of ids with a listed user agent counts, and the entry of the list
	counted  []Event
}

// NewOracle prepares the answers for w's range and zone.
func NewOracle(w *World) (*Oracle, error) {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return nil, fmt.Errorf("zone of world %s: %w", w.App, err)
	}
	o := &Oracle{w: w, zone: zone, from: dayOf(w.From), to: dayOf(w.To)}
	o.findBots()
	for _, e := range w.Events {
		if e.Now.ActorKind != "account" && e.Now.ActorKind != "erased" && len(o.reasons(&e)) == 0 {
			o.counted = append(o.counted, e)
		}
	}
	return o, nil
}

// findBots lists for whom events count that name an id which any event with a listed
// user agent names. An event names its user, or else its anonymous id.
func (o *Oracle) findBots() {
	named := func(e *Event) string {
		if e.User != "" {
			return "user " + e.User
		}
		return "anonymous " + e.Anonymous
	}
	listed := map[string][]string{}
	for i := range o.w.Events {
		e := &o.w.Events[i]
		for _, entry := range o.w.Definitions.ExcludedAgents {
			if strings.Contains(strings.ToLower(e.Agent), entry) && e.User+e.Anonymous != "" {
				listed[named(e)] = append(listed[named(e)], entry)
			}
		}
	}
	o.bots = map[Who]string{}
	for i := range o.w.Events {
		e := &o.w.Events[i]
		for _, entry := range listed[named(e)] {
			if had, ok := o.bots[who(e)]; !ok || entry < had {
				o.bots[who(e)] = entry
			}
		}
	}
}

func dayOf(date string) int {
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		panic(err) // cannot happen: worlds format their own days
	}
	return int(t.Unix() / 86400)
}

func date(day int) string { return time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly) }

func (o *Oracle) day(t time.Time) int {
	l := t.In(o.zone)
	return int(time.Date(l.Year(), l.Month(), l.Day(), 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

func (o *Oracle) in(e *Event) bool { d := o.day(e.Time); return d >= o.from && d < o.to }

// reasons says which definitions leave an event out.
func (o *Oracle) reasons(e *Event) (reasons []string) {
	d := &o.w.Definitions
	var person []string
	if entry, ok := o.bots[who(e)]; ok {
		person = append(person, "user_agent "+entry)
	}
	if e.Now.ActorKind == "user" {
		if slices.Contains(d.ExcludedUsers, e.Now.Actor) {
			person = append(person, "user "+e.Now.Actor)
		}
		for _, domain := range d.ExcludedDomains {
			_, at, _ := strings.Cut(strings.ToLower(o.w.UserTraits[e.Now.Actor]["email"]), "@")
			if at == domain {
				person = append(person, "mail_domain "+domain)
			}
		}
		if t := d.ExcludedTrait; t[0] != "" && o.w.UserTraits[e.Now.Actor][t[0]] == t[1] {
			person = append(person, "trait "+t[0]+"="+t[1])
		}
	}
	if len(person) > 0 {
		reasons = append(reasons, slices.Min(person))
	}
	var of []string
	if slices.Contains(d.ExcludedAccounts, e.Now.Account) {
		of = append(of, "account "+e.Now.Account)
	}
	if t := d.ExcludedAccountTrait; t[0] != "" && o.w.AccountTraits[e.Now.Account][t[0]] == t[1] {
		of = append(of, "account_trait "+t[0]+"="+t[1])
	}
	if len(of) > 0 {
		reasons = append(reasons, slices.Min(of))
	}
	if slices.Contains(d.ExcludedRoles, e.Now.Role) {
		reasons = append(reasons, "role "+e.Now.Role)
	}
	return reasons
}

func (o *Oracle) active(e *Event) bool {
	d := &o.w.Definitions
	if len(d.ActiveFeatures)+len(d.ActiveModules) == 0 {
		return e.Now.Feature != ""
	}
	return slices.Contains(d.ActiveFeatures, e.Now.Feature) || slices.Contains(d.ActiveModules, e.Now.Module)
}

func who(e *Event) Who { return Who{e.Now.ActorKind, e.Now.Actor} }

// unit is the person or the account that an event counts for.
func unit(e *Event, of string) (Who, bool) {
	if of == "account" {
		return Who{"account", e.Now.Account}, e.Now.Account != ""
	}
	return who(e), true
}

func periodOf(period string, day int) int {
	t := time.Unix(int64(day)*86400, 0).UTC()
	switch period {
	case "week":
		return day - (int(t.Weekday())+6)%7
	case "sunday_week":
		return day - int(t.Weekday())
	case "month":
		return dayOf(t.Format("2006-01") + "-01")
	case "quarter":
		return dayOf(time.Date(t.Year(), (t.Month()-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC).Format(time.DateOnly))
	}
	return day
}

func nextPeriod(period string, start int) int {
	for d := start + 1; ; d++ {
		if periodOf(period, d) == d {
			return d
		}
	}
}

type set[T comparable] map[T]bool

func (s set[T]) add(v T) { s[v] = true }

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	var ks []K
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func (o *Oracle) dimension(e *Event, by string) string {
	switch by {
	case "":
		return ""
	case "product":
		return e.Now.Product
	case "module":
		return e.Now.Module
	case "feature":
		return e.Now.Feature
	case "account":
		return e.Now.Account
	case "role":
		return e.Now.Role
	}
	of, trait, _ := strings.Cut(by, ".")
	if of == "account" {
		return o.w.AccountTraits[e.Now.Account][trait]
	}
	if e.Now.ActorKind != "user" {
		return ""
	}
	return o.w.UserTraits[e.Now.Actor][trait]
}

// ActiveUsersBy answers active_users_by, and with by empty active_users.
func (o *Oracle) ActiveUsersBy(period, by string) (rows []Row) {
	type cell struct {
		people   set[Who]
		accounts set[string]
		users, n int
	}
	cells := map[string]*cell{}
	for i := range o.counted {
		e := &o.counted[i]
		if !o.in(e) || !o.active(e) {
			continue
		}
		k := date(periodOf(period, o.day(e.Time))) + "\x00" + o.dimension(e, by)
		c := cells[k]
		if c == nil {
			c = &cell{people: set[Who]{}, accounts: set[string]{}}
			cells[k] = c
		}
		if !c.people[who(e)] && e.Now.ActorKind == "user" {
			c.users++
		}
		c.people.add(who(e))
		if e.Now.Account != "" {
			c.accounts.add(e.Now.Account)
		}
		c.n++
	}
	for _, k := range sorted(cells) {
		start, value, _ := strings.Cut(k, "\x00")
		c := cells[k]
		if by == "" {
			rows = append(rows, row(start, len(c.people), c.users, len(c.people)-c.users, len(c.accounts), c.n))
			continue
		}
		rows = append(rows, row(start, value, len(c.people), c.users, len(c.accounts), c.n))
	}
	return rows
}

// activeDays are the days on which each one of a unit was active, of all time
// before the end of the range.
func (o *Oracle) activeDays(of string) map[Who]set[int] {
	days := map[Who]set[int]{}
	for i := range o.counted {
		e := &o.counted[i]
		u, ok := unit(e, of)
		if d := o.day(e.Time); ok && o.active(e) && d < o.to {
			if days[u] == nil {
				days[u] = set[int]{}
			}
			days[u].add(d)
		}
	}
	return days
}

// Stickiness answers stickiness.
func (o *Oracle) Stickiness() (rows []Row) {
	days := o.activeDays("person")
	within := func(day, n int) (people int) {
		for _, ds := range days {
			for d := day - n + 1; d <= day; d++ {
				if ds[d] {
					people++
					break
				}
			}
		}
		return people
	}
	for d := o.from; d < o.to; d++ {
		dau, wau, mau := within(d, 1), within(d, 7), within(d, 28)
		rows = append(rows, row(date(d), dau, wau, mau, ratio(dau, mau), ratio(dau, wau)))
	}
	return rows
}

// StickinessHistogram answers stickiness_histogram.
func (o *Oracle) StickinessHistogram() (rows []Row) {
	people := map[int]int{}
	for _, ds := range o.activeDays("person") {
		n := 0
		for d := range ds {
			if d >= o.from {
				n++
			}
		}
		if n > 0 {
			people[n]++
		}
	}
	for _, n := range sorted(people) {
		rows = append(rows, row(n, people[n]))
	}
	return rows
}

// Lifecycle answers lifecycle and lifecycle_by.
func (o *Oracle) Lifecycle(period, of string) (rows []Row) {
	active := map[Who]set[int]{}
	for u, ds := range o.activeDays(of) {
		active[u] = set[int]{}
		for d := range ds {
			active[u].add(periodOf(period, d))
		}
	}
	for p := periodOf(period, o.from); p < o.to; p = nextPeriod(period, p) {
		before := periodOf(period, p-1)
		var fresh, returning, resurrected, dormant int
		for _, ps := range active {
			first := slices.Min(sorted(ps))
			switch {
			case ps[p] && first == p:
				fresh++
			case ps[p] && ps[before]:
				returning++
			case ps[p]:
				resurrected++
			case ps[before]:
				dormant++
			}
		}
		if fresh+returning+resurrected+dormant > 0 {
			rows = append(rows, row(date(p), fresh, returning, resurrected, dormant, ratio(fresh+resurrected, dormant)))
		}
	}
	return rows
}

// Adoption answers adoption and adoption_by.
func (o *Oracle) Adoption(level string) (rows []Row) {
	active, activeAccounts := set[Who]{}, set[string]{}
	for i := range o.counted {
		if e := &o.counted[i]; o.in(e) && o.active(e) {
			active.add(who(e))
			if e.Now.Account != "" {
				activeAccounts.add(e.Now.Account)
			}
		}
	}
	type use struct {
		people   set[Who]
		accounts set[string]
		days     set[string]
		n        int
	}
	uses := map[string]*use{}
	for i := range o.counted {
		e := &o.counted[i]
		id := map[string]string{"feature": e.Now.Feature, "module": e.Now.Module, "product": e.Now.Product}[level]
		if !o.in(e) || id == "" {
			continue
		}
		u := uses[id]
		if u == nil {
			u = &use{set[Who]{}, set[string]{}, set[string]{}, 0}
			uses[id] = u
		}
		u.people.add(who(e))
		u.accounts.add(e.Now.Account)
		u.days.add(fmt.Sprint(who(e), o.day(e.Time)))
		u.n++
	}
	for _, id := range sorted(uses) {
		u := uses[id]
		delete(u.accounts, "")
		people, accounts := 0, 0
		for p := range u.people {
			if active[p] {
				people++
			}
		}
		for a := range u.accounts {
			if activeAccounts[a] {
				accounts++
			}
		}
		rows = append(rows, row(id, len(u.people), ratio(people, len(active)), len(u.accounts), ratio(accounts, len(activeAccounts)), u.n,
			ratio(u.n, len(u.people)), ratio(len(u.days), len(u.people))))
	}
	return rows
}

// AdoptionChanges answers adoption_changes.
func (o *Oracle) AdoptionChanges() (rows []Row) {
	type use struct {
		before, now          int
		peopleBefore, people set[Who]
	}
	uses := map[string]*use{}
	for i := range o.counted {
		e := &o.counted[i]
		d := o.day(e.Time)
		if e.Now.Account == "" || e.Now.Feature == "" || d < 2*o.from-o.to || d >= o.to {
			continue
		}
		k := e.Now.Account + "\x00" + e.Now.Feature
		u := uses[k]
		if u == nil {
			u = &use{peopleBefore: set[Who]{}, people: set[Who]{}}
			uses[k] = u
		}
		if d < o.from {
			u.before++
			u.peopleBefore.add(who(e))
		} else {
			u.now++
			u.people.add(who(e))
		}
	}
	for _, k := range sorted(uses) {
		account, feature, _ := strings.Cut(k, "\x00")
		u := uses[k]
		change := "steady"
		switch {
		case u.before == 0:
			change = "adopted"
		case u.now == 0:
			change = "dropped"
		case len(u.people) > len(u.peopleBefore):
			change = "spreading"
		case len(u.people) < len(u.peopleBefore):
			change = "shrinking"
		}
		rows = append(rows, row(account, feature, u.before, u.now, len(u.peopleBefore), len(u.people), change))
	}
	return rows
}

// FirstUse answers feature_first_use.
func (o *Oracle) FirstUse() (rows []Row) {
	seen := map[Who]time.Time{}
	type key struct {
		Who
		feature string
	}
	uses := map[key][]time.Time{}
	for i := range o.counted {
		e := &o.counted[i]
		if o.day(e.Time) >= o.to {
			continue
		}
		hour := e.Time.Truncate(time.Hour)
		if t, ok := seen[who(e)]; !ok || hour.Before(t) {
			seen[who(e)] = hour
		}
		if e.Now.Feature != "" {
			k := key{who(e), e.Now.Feature}
			uses[k] = append(uses[k], e.Time)
		}
	}
	for k, times := range uses {
		slices.SortFunc(times, time.Time.Compare)
		days := set[int]{}
		for _, t := range times {
			days.add(o.day(t))
		}
		if o.day(times[0]) < o.from {
			continue
		}
		first, last := times[0].Truncate(time.Hour), times[len(times)-1].Truncate(time.Hour)
		abandoned := len(days) == 1 && o.day(times[0])+28 < o.to
		rows = append(rows, row(k.Kind, k.ID, k.feature, first, last, len(days), len(times), int(first.Sub(seen[k.Who])/time.Hour), abandoned))
	}
	return byText(rows)
}

// FirstUseSummary answers feature_first_use_summary.
func (o *Oracle) FirstUseSummary() (rows []Row) {
	people, abandoned, hours := map[string]int{}, map[string]int{}, map[string][]float64{}
	for _, r := range o.FirstUse() {
		var h float64
		_, _ = fmt.Sscan(r[7], &h) // written by Format
		people[r[2]]++
		hours[r[2]] = append(hours[r[2]], h)
		if r[8] == "1" {
			abandoned[r[2]]++
		}
	}
	for _, f := range sorted(people) {
		rows = append(rows, row(f, people[f], abandoned[f], quantile(0.5, hours[f])))
	}
	return rows
}

func byText(rows []Row) []Row {
	slices.SortFunc(rows, func(a, b Row) int { return slices.Compare(a, b) })
	return rows
}

// Behaviour answers behaviour.
func (o *Oracle) Behaviour(of string) (rows []Row) {
	type use struct {
		features map[string]int
		days     set[int]
		n        int
	}
	uses := map[Who]*use{}
	for i := range o.counted {
		e := &o.counted[i]
		u, ok := unit(e, of)
		if !ok || !o.in(e) || e.Now.Feature == "" {
			continue
		}
		if uses[u] == nil {
			uses[u] = &use{map[string]int{}, set[int]{}, 0}
		}
		uses[u].features[e.Now.Feature]++
		uses[u].days.add(o.day(e.Time))
		uses[u].n++
	}
	days := float64(o.to - o.from)
	for u, use := range uses {
		shares := map[string]float64{}
		for f, n := range use.features {
			shares[f] = float64(n) / float64(use.n)
		}
		ago := o.to - 1 - slices.Max(sorted(use.days))
		rows = append(rows, row(u.Kind, u.ID, use.n, fmt.Sprint(shares), len(use.days), float64(len(use.days))/days, ago, 1-float64(ago)/days))
	}
	return byText(rows)
}

// LicenceUse answers licence_use.
func (o *Oracle) LicenceUse() (rows []Row) {
	users := map[string]set[string]{}
	for i := range o.counted {
		if e := &o.counted[i]; o.in(e) && o.active(e) && e.Now.ActorKind == "user" {
			if users[e.Now.Account] == nil {
				users[e.Now.Account] = set[string]{}
			}
			users[e.Now.Account].add(e.Now.Actor)
		}
	}
	for _, a := range sorted(o.w.AccountTraits) {
		if len(o.reasons(&Event{Now: Whom{Account: a, ActorKind: "anonymous", Role: "?"}})) > 0 {
			continue
		}
		var seats int
		_, _ = fmt.Sscan(o.w.AccountTraits[a]["seats"], &seats) // worlds write numbers
		rows = append(rows, row(a, seats, len(users[a]), ratio(len(users[a]), seats)))
	}
	return rows
}

// Retention answers retention and retention_by.
func (o *Oracle) Retention(period, of string, start, back []string) (rows []Row) {
	is := func(e *Event, features []string) bool {
		if len(features) == 0 {
			return o.active(e)
		}
		return slices.Contains(features, e.Now.Feature)
	}
	cohorts, returns := map[Who]int{}, map[Who]set[int]{}
	for i := range o.counted {
		e := &o.counted[i]
		u, ok := unit(e, of)
		d := o.day(e.Time)
		if !ok || d >= o.to {
			continue
		}
		p := periodOf(period, d)
		if c, had := cohorts[u]; is(e, start) && (!had || p < c) {
			cohorts[u] = p
		}
		if returns[u] == nil {
			returns[u] = set[int]{}
		}
		if is(e, back) {
			returns[u].add(p)
		}
	}
	members := map[int][]Who{}
	for u, c := range cohorts {
		members[c] = append(members[c], u)
	}
	for _, c := range sorted(members) {
		if c < periodOf(period, o.from) {
			continue
		}
		age := 0
		for p := c; p < o.to; p = nextPeriod(period, p) {
			on, after := 0, 0
			for _, u := range members[c] {
				if returns[u][p] {
					on++
				}
				for q := range returns[u] {
					if q >= p {
						after++
						break
					}
				}
			}
			n := len(members[c])
			rows = append(rows, row(date(c), age, n, on, after, ratio(on, n), ratio(after, n), nextPeriod(period, p) <= o.to))
			age++
		}
	}
	return rows
}

// inOrder is the order of time, and of the log where the time is the same.
func inOrder(a, b *Event) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

func matches(e *Event, step string) bool {
	return e.Now.Feature != "" && step == e.Now.Feature || step == "event:"+e.Name
}

// chain finds how far events lead through steps within the window of the first
// one, trying every one: no event is two steps, and steps of one instant may
// come in any order.
func chain(events []*Event, steps []string, window time.Duration) (level int) {
	used := make([]bool, len(events))
	var try func(k int, first, last time.Time)
	try = func(k int, first, last time.Time) {
		level = max(level, k)
		for i := 0; i < len(events) && k < len(steps) && level < len(steps); i++ {
			e := events[i]
			if used[i] || !matches(e, steps[k]) || k > 0 && (e.Time.Before(last) || e.Time.Sub(first) > window) {
				continue
			}
			used[i] = true
			if k == 0 {
				try(1, e.Time, e.Time)
			} else {
				try(k+1, first, e.Time)
			}
			used[i] = false
		}
	}
	try(0, time.Time{}, time.Time{})
	return level
}

// stepTimes are the times of the chain that reached the furthest step first, each
// step before it at its last occurrence; events of one instant are in the order of
// the steps that they match first, then of the log. It looks backwards from each
// candidate for a last step.
func stepTimes(events []*Event, steps []string, window time.Duration) []time.Time {
	lowest := func(e *Event) int {
		for k, s := range steps {
			if matches(e, s) {
				return k
			}
		}
		return len(steps)
	}
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b *Event) int {
		return cmp.Or(a.Time.Compare(b.Time), lowest(a)-lowest(b), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	// back returns the chain that ends with event i as step k, if there is one.
	var back func(i, k int) []time.Time
	memo := map[[2]int][]time.Time{}
	back = func(i, k int) []time.Time {
		if !matches(events[i], steps[k]) {
			return nil
		}
		if k == 0 {
			return []time.Time{events[i].Time}
		}
		if c, ok := memo[[2]int{i, k}]; ok {
			return c
		}
		var found []time.Time
		for j := i - 1; j >= 0; j-- {
			if c := back(j, k-1); c != nil {
				if events[i].Time.Sub(c[0]) <= window {
					found = append(slices.Clone(c), events[i].Time)
				}
				break // chains that end earlier do not begin later
			}
		}
		memo[[2]int{i, k}] = found
		return found
	}
	for k := len(steps) - 1; k >= 0; k-- {
		for i := range events {
			if c := back(i, k); c != nil {
				return c
			}
		}
	}
	return nil
}

// FunnelPerson is how far one went in a funnel.
type FunnelPerson struct {
	Who
	Level int
	Times []time.Time
	Value string
}

// FunnelPeople answers funnel_people.
func (o *Oracle) FunnelPeople(steps []string, window time.Duration, of, by string) (all []FunnelPerson) {
	events := map[Who][]*Event{}
	for i := range o.counted {
		e := &o.counted[i]
		if u, ok := unit(e, of); ok && o.in(e) && slices.ContainsFunc(steps, func(s string) bool { return matches(e, s) }) {
			events[u] = append(events[u], e)
		}
	}
	for u, es := range events {
		p := FunnelPerson{Who: u, Level: chain(es, steps, window), Times: stepTimes(es, steps, window)}
		if p.Level == 0 {
			continue
		}
		slices.SortFunc(es, inOrder)
		for _, e := range es {
			if e.Time.Equal(p.Times[0]) && matches(e, steps[0]) {
				p.Value = o.dimension(e, by)
				break
			}
		}
		all = append(all, p)
	}
	return all
}

// Funnel answers funnel_by, and with by empty and unit person funnel.
func (o *Oracle) Funnel(steps []string, window time.Duration, of, by string) (rows []Row) {
	return funnelRows(o.FunnelPeople(steps, window, of, by), steps)
}

func funnelRows(people []FunnelPerson, names []string) (rows []Row) {
	groups := map[string][]FunnelPerson{}
	for _, p := range people {
		groups[p.Value] = append(groups[p.Value], p)
	}
	for _, value := range sorted(groups) {
		before, first := 0, 0
		for k, s := range names {
			reached := 0
			var seconds []float64
			for _, p := range groups[value] {
				if p.Level > k {
					reached++
				}
				if k > 0 && len(p.Times) > k {
					seconds = append(seconds, p.Times[k].Sub(p.Times[k-1]).Seconds())
				}
			}
			if k == 0 {
				first, before = reached, reached
			}
			rows = append(rows, row(value, k+1, s, reached, ratio(reached, first), ratio(reached, before), quantile(0.5, seconds), quantile(0.9, seconds)))
			before = reached
		}
	}
	return rows
}

// FunnelOptions answers funnel_options.
func (o *Oracle) FunnelOptions(steps []string, window time.Duration, of, by, ordering string, without []string) []Row {
	events := map[Who][]*Event{}
	for i := range o.counted {
		e := &o.counted[i]
		if u, ok := unit(e, of); ok && o.in(e) {
			events[u] = append(events[u], e)
		}
	}
	names := steps
	if ordering == "any" {
		names = make([]string, len(steps))
	}
	var people []FunnelPerson
	for u, es := range events {
		slices.SortFunc(es, inOrder)
		best := FunnelPerson{Who: u}
		var try []*Event
		end := func() {
			var level int
			var times []time.Time
			switch ordering {
			case "strict":
				times = strictTimes(try, steps, window)
				level = len(times)
			case "any":
				times = anyTimes(try, steps, window)
				level = len(times)
			default:
				level, times = chain(try, steps, window), stepTimes(try, steps, window)
			}
			if level > best.Level {
				best.Level, best.Times = level, times
				i := slices.IndexFunc(try, func(e *Event) bool {
					return e.Time.Equal(times[0]) && (matches(e, steps[0]) || ordering == "any" && matchesAny(e, steps))
				})
				best.Value = o.dimension(try[i], by)
			}
			try = nil
		}
		for _, e := range es {
			if matchesAny(e, without) {
				end()
				continue
			}
			try = append(try, e)
		}
		if end(); best.Level > 0 {
			people = append(people, best)
		}
	}
	return funnelRows(people, names)
}

func matchesAny(e *Event, steps []string) bool {
	return slices.ContainsFunc(steps, func(s string) bool { return matches(e, s) })
}

// strictTimes are those of the longest run of events without another between that are
// the steps from the first on.
func strictTimes(events []*Event, steps []string, window time.Duration) (best []time.Time) {
	for i := range events {
		var run []time.Time
		for k, s := range steps {
			if i+k >= len(events) || !matches(events[i+k], s) || events[i+k].Time.Sub(events[i].Time) > window {
				break
			}
			run = append(run, events[i+k].Time)
		}
		if len(run) > len(best) {
			best = run
		}
	}
	return best
}

// anyTimes looks back from each event for the newest one of each step within the
// window; a step that is listed twice needs two. An event is the first step that it matches.
func anyTimes(events []*Event, steps []string, window time.Duration) (best []time.Time) {
	for end := range events {
		left := map[string]int{}
		for _, s := range steps {
			left[s]++
		}
		var times []time.Time
		for i := end; i >= 0 && events[end].Time.Sub(events[i].Time) <= window; i-- {
			k := slices.IndexFunc(steps, func(s string) bool { return matches(events[i], s) })
			if k >= 0 && left[steps[k]] > 0 {
				left[steps[k]]--
				times = append(times, events[i].Time)
			}
		}
		if len(times) > len(best) {
			slices.Reverse(times)
			best = times
		}
	}
	return best
}

// Session is events of a person without a long gap.
type Session struct {
	Who
	Number int
	Events []*Event
}

func (s Session) steps() (names []string) {
	for _, e := range s.Events {
		if e.Now.Feature != "" {
			names = append(names, e.Now.Feature)
		} else {
			names = append(names, "event:"+e.Name)
		}
	}
	return names
}

func (s Session) seconds() float64 {
	return s.Events[len(s.Events)-1].Time.Sub(s.Events[0].Time).Seconds()
}

func (o *Oracle) sessions() (all []Session) {
	gap := o.w.Definitions.SessionGap
	if gap == 0 {
		gap = 30 * time.Minute
	}
	events := map[Who][]*Event{}
	for i := range o.counted {
		if e := &o.counted[i]; o.in(e) {
			events[who(e)] = append(events[who(e)], e)
		}
	}
	for p, es := range events {
		slices.SortFunc(es, inOrder)
		number := 0
		for i, e := range es {
			if i == 0 || e.Time.Sub(es[i-1].Time) > gap {
				number++
				all = append(all, Session{Who: p, Number: number})
			}
			s := &all[len(all)-1]
			s.Events = append(s.Events, e)
		}
	}
	return all
}

// Sessions answers sessions.
func (o *Oracle) Sessions() (rows []Row) {
	for _, s := range o.sessions() {
		first, last := s.Events[0], s.Events[len(s.Events)-1]
		rows = append(rows, row(s.Kind, s.ID, first.Now.Account, s.Number, first.Time, last.Time, s.seconds(), len(s.Events), s.steps()))
	}
	return byText(rows)
}

// SessionSummary answers session_summary.
func (o *Oracle) SessionSummary(period string) (rows []Row) {
	groups := map[int][]Session{}
	for _, s := range o.sessions() {
		p := periodOf(period, o.day(s.Events[0].Time))
		groups[p] = append(groups[p], s)
	}
	for _, p := range sorted(groups) {
		people := set[Who]{}
		events, single := 0, 0
		var seconds []float64
		for _, s := range groups[p] {
			people.add(s.Who)
			events += len(s.Events)
			if len(s.Events) == 1 {
				single++
			}
			seconds = append(seconds, s.seconds())
		}
		n := len(groups[p])
		rows = append(rows, row(date(p), n, len(people), ratio(n, len(people)), ratio(events, n), quantile(0.5, seconds), ratio(single, n)))
	}
	return rows
}

// Paths answers paths_after, or with before paths_before.
func (o *Oracle) Paths(step string, length int, before bool) (rows []Row) {
	sessions, people := map[string]int{}, map[string]set[Who]{}
	for _, s := range o.sessions() {
		names := slices.Compact(s.steps())
		at := slices.Index(names, step)
		if at < 0 {
			continue
		}
		path := names[at:min(len(names), at+length)]
		if before {
			path = names[max(0, at+1-length) : at+1]
		}
		k := Format(path)
		sessions[k]++
		if people[k] == nil {
			people[k] = set[Who]{}
		}
		people[k].add(s.Who)
	}
	for _, k := range sorted(sessions) {
		rows = append(rows, row(k, sessions[k], len(people[k])))
	}
	return rows
}

type milestones struct {
	Who
	account                                             string
	first                                               time.Time
	page, signup, activation, value, subscription, paid *time.Time
}

func (o *Oracle) milestones() (all []milestones) {
	d := &o.w.Definitions
	byPerson := map[Who]*milestones{}
	latest := map[Who]*Event{}
	for i := range o.counted {
		e := &o.counted[i]
		m := byPerson[who(e)]
		if m == nil {
			m = &milestones{Who: who(e), first: e.Time}
			byPerson[who(e)] = m
		}
		if e.Time.Before(m.first) {
			m.first = e.Time
		}
		if l := latest[who(e)]; l == nil || cmp.Or(e.Time.Compare(l.Time), cmp.Compare(e.Partition, l.Partition), cmp.Compare(e.Offset, l.Offset)) > 0 {
			latest[who(e)] = e
		}
		for _, f := range []struct {
			rule string
			at   **time.Time
		}{{d.SignupPage, &m.page}, {d.Signup, &m.signup}, {d.Activation, &m.activation}, {d.Value, &m.value}, {d.Subscribed, &m.subscription}, {d.Paid, &m.paid}} {
			is := f.rule == "event:"+e.Name || f.rule == "feature:"+e.Now.Feature
			if is && (*f.at == nil || e.Time.Before(**f.at)) {
				*f.at = &e.Time
			}
		}
	}
	for p, m := range byPerson {
		m.account = latest[p].Now.Account
		all = append(all, *m)
	}
	return all
}

// FitPeople answers fit_people.
func (o *Oracle) FitPeople() (rows []Row) {
	for _, m := range o.milestones() {
		rows = append(rows, row(m.Kind, m.ID, m.account, m.first, m.page, m.signup, m.activation, m.value, m.subscription, m.paid))
	}
	return byText(rows)
}

// Fit answers fit.
func (o *Oracle) Fit() []Row {
	within := func(t *time.Time) bool { return t != nil && o.day(*t) >= o.from && o.day(*t) < o.to }
	var saw, after, signups, activated, subscribers, paying, converted int
	var toSignup, toActivation, toPaid []float64
	for _, m := range o.milestones() {
		seconds := func(from, to *time.Time, into *[]float64) int {
			if to == nil || to.Before(*from) {
				return 0
			}
			*into = append(*into, to.Sub(*from).Seconds())
			return 1
		}
		if within(m.page) {
			saw++
			after += seconds(m.page, m.signup, &toSignup)
		}
		if within(m.signup) {
			signups++
			activated += seconds(m.signup, m.activation, &toActivation)
			converted += seconds(m.signup, m.paid, &toPaid)
		}
		if within(m.subscription) {
			subscribers++
		}
		if within(m.paid) {
			paying++
		}
	}
	var mean *float64
	if len(toSignup) > 0 {
		sum := 0.0
		for _, s := range toSignup {
			sum += s
		}
		sum /= float64(len(toSignup))
		mean = &sum
	}
	return []Row{row(saw, after, ratio(after, saw), mean, quantile(0.5, toSignup), signups, activated, ratio(activated, signups), quantile(0.5, toActivation),
		subscribers, paying, converted, ratio(converted, signups), quantile(0.5, toPaid))}
}

// TimeToValue answers time_to_value.
func (o *Oracle) TimeToValue() []Row {
	people := 0
	var toActivation, toValue []float64
	for _, m := range o.milestones() {
		if d := o.day(m.first); d < o.from || d >= o.to {
			continue
		}
		people++
		if m.activation != nil {
			toActivation = append(toActivation, m.activation.Sub(m.first).Seconds())
		}
		if m.value != nil {
			toValue = append(toValue, m.value.Sub(m.first).Seconds())
		}
	}
	return []Row{row(people, len(toActivation), quantile(0.5, toActivation), len(toValue), ratio(len(toValue), people), quantile(0.5, toValue), quantile(0.9, toValue))}
}

// Friction answers friction.
func (o *Oracle) Friction() (rows []Row) {
	times, accounts := map[string]map[Who][]time.Time{}, map[string]set[string]{}
	for i := range o.counted {
		e := &o.counted[i]
		if !o.in(e) || o.w.Definitions.Friction != "feature:"+e.Now.Feature {
			continue
		}
		s := e.Now.Feature
		if times[s] == nil {
			times[s], accounts[s] = map[Who][]time.Time{}, set[string]{}
		}
		times[s][who(e)] = append(times[s][who(e)], e.Time)
		accounts[s].add(e.Now.Account)
	}
	for _, s := range sorted(times) {
		n, repeating := 0, 0
		for _, ts := range times[s] {
			n += len(ts)
			if slices.ContainsFunc(ts, func(first time.Time) bool {
				near := 0
				for _, t := range ts {
					if !t.Before(first) && t.Sub(first) <= 10*time.Second {
						near++
					}
				}
				return near >= 3
			}) {
				repeating++
			}
		}
		delete(accounts[s], "")
		rows = append(rows, row(s, n, len(times[s]), len(accounts[s]), repeating))
	}
	return rows
}

// host is that of a referrer.
func host(referrer string) string {
	u, err := url.Parse(referrer)
	if err != nil {
		panic(err) // cannot happen: worlds have two referrers
	}
	return u.Hostname()
}

// Touches answers touches.
func (o *Oracle) Touches() (rows []Row) {
	of := map[Who][]*Event{}
	for i := range o.counted {
		if e := &o.counted[i]; o.in(e) && e.Touch != (Touch{}) {
			of[who(e)] = append(of[who(e)], e)
		}
	}
	order := func(a, b *Event) int {
		return inOrder(a, b)
	}
	for person, events := range of {
		first, last := slices.MinFunc(events, order), slices.MaxFunc(events, order)
		rows = append(rows, row(person.Kind, person.ID, len(events), first.Time, host(first.Touch.Referrer), first.Touch.Source, first.Touch.Medium, first.Touch.Campaign,
			last.Time, host(last.Touch.Referrer), last.Touch.Source, last.Touch.Medium, last.Touch.Campaign))
	}
	return byText(rows)
}

// ExcludedUsage answers excluded_usage.
func (o *Oracle) ExcludedUsage() (rows []Row) {
	people, accounts, n := map[string]set[Who]{}, map[string]set[string]{}, map[string]int{}
	for i := range o.w.Events {
		e := &o.w.Events[i]
		if !o.in(e) || e.Now.ActorKind == "account" || e.Now.ActorKind == "erased" {
			continue
		}
		for _, r := range o.reasons(e) {
			if people[r] == nil {
				people[r], accounts[r] = set[Who]{}, set[string]{}
			}
			people[r].add(who(e))
			accounts[r].add(e.Now.Account)
			n[r]++
		}
	}
	for _, r := range sorted(n) {
		delete(accounts[r], "")
		rows = append(rows, row(r, len(people[r]), len(accounts[r]), n[r]))
	}
	return rows
}

// Breakdown answers metadata_breakdown of till.kind.
func (o *Oracle) Breakdown(step string) (rows []Row) {
	type cell struct {
		n        int
		quantity int64
		people   set[Who]
		accounts set[string]
	}
	cells := map[string]*cell{}
	for i := range o.counted {
		e := &o.counted[i]
		if !o.in(e) || step != "" && !matches(e, step) {
			continue
		}
		_, value, _ := strings.Cut(e.Properties, `"kind":"`)
		value, _, _ = strings.Cut(value, `"`)
		c := cells[value]
		if c == nil {
			c = &cell{people: set[Who]{}, accounts: set[string]{}}
			cells[value] = c
		}
		c.n++
		c.quantity += e.Quantity
		c.people.add(who(e))
		c.accounts.add(e.Now.Account)
	}
	for _, v := range sorted(cells) {
		c := cells[v]
		delete(c.accounts, "")
		rows = append(rows, row(v, c.n, c.quantity, len(c.people), len(c.accounts)))
	}
	return rows
}

// Attribution is each event of the range with whom it counts for.
func (o *Oracle) Attribution() (rows []Row) {
	for i := range o.w.Events {
		if e := &o.w.Events[i]; o.in(e) {
			n := e.Now
			rows = append(rows, row(int(e.Partition), e.Offset, n.Actor, n.ActorKind, n.Account, n.AccountSource, n.Role, n.Feature, n.Module, n.Product))
		}
	}
	return byText(rows)
}

// Timeline answers user_timeline with the time and name of usage events.
func (o *Oracle) Timeline(user string) (rows []Row) {
	var events []*Event
	for i := range o.w.Events {
		if e := &o.w.Events[i]; o.in(e) && e.Now.Actor == user && (e.Now.ActorKind == "user" || e.Now.ActorKind == "anonymous") {
			events = append(events, e)
		}
	}
	sort.SliceStable(events, func(i, j int) bool {
		a, b := events[i], events[j]
		return inOrder(a, b) < 0
	})
	for _, e := range events {
		rows = append(rows, row(e.Time, e.Kind, e.Name, e.Now.Feature, e.Now.Account, e.Now.Role))
	}
	return rows
}
