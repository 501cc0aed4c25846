package analytics

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/behaviour"
	"github.com/uptakehq/uptake/schemas/catalog"
	catalogsample "github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/loadgen"
)

// cluster groups users or accounts by the four weeks up to the end of the world, as
// docs/questions.md does.
func (s store) cluster(t *testing.T, w *World, unit string) *behaviour.Grouped {
	t.Helper()
	cfg := behaviour.DefaultConfig()
	cfg.App, cfg.Unit, cfg.From, cfg.To, cfg.Zone = w.App, unit, "2026-10-26", w.To, w.Zone
	schema := clickhouse.Schema{Database: strings.TrimSuffix(s.internal, "_internal"), Form: clickhouse.SingleForm()}
	g, err := behaviour.Run(t.Context(), s.conn, schema, &cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// cells are the grouped members and descriptions of clusters.
type cells struct {
	cluster      map[string]uint32 // by user
	descriptions map[uint32]string
}

// personas holds the stored clusters against what was planted.
func personas(t *testing.T, s store, w *World, told *loadgen.Stories) {
	t.Helper()
	got := cells{map[string]uint32{}, map[uint32]string{}}
	number := func(text string) uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	of := " WHERE app_id = '" + w.App + "' AND unit_kind = 'user'"
	for _, r := range s.must(t, "SELECT unit_id, cluster FROM behaviour_cluster_members"+of) {
		got.cluster[r[0]] = number(r[1])
	}
	for _, r := range s.must(t, "SELECT cluster, description FROM behaviour_clusters"+of) {
		got.descriptions[number(r[0])] = r[1]
	}
	if index := got.check(t, told, 0.8); index < 0.9 {
		t.Errorf("adjusted Rand index %.3f of personas and clusters, want 0.9 or more", index)
	}
	// All that were read are somewhere: in a cluster, in none, or left out.
	sums := s.must(t, "SELECT sum(units) + any(units_left_out) = any(units_looked_at), sum(share) BETWEEN 0.999 AND 1.001, sum(units) = (SELECT count() FROM behaviour_cluster_members"+of+") FROM behaviour_clusters"+of)
	if strings.Join(sums[0], " ") != "1 1 1" {
		t.Errorf("sums of clusters: %v", sums)
	}
}

func (s store) must(t *testing.T, q string) []Row {
	t.Helper()
	rows, err := s.rows(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// check holds that each planted persona has a cluster of its own with at least that share
// of its users, and that what sets it apart in words is what was planted. It returns how
// well personas and clusters agree.
func (c cells) check(t *testing.T, told *loadgen.Stories, share float64) float64 {
	t.Helper()
	in := map[string]map[uint32]int{} // users by persona and cluster
	for user, cluster := range c.cluster {
		if p := told.Personas[user]; p != "" {
			if in[p] == nil {
				in[p] = map[uint32]int{}
			}
			in[p][cluster]++
		}
	}
	// The tills of the sales do what the planted ones do, on fewer days: where one comes
	// in between, they are one cluster.
	words := map[string]string{"till": "comes on more days", "bookkeeper": "uses Invoice Printed", "packer": "uses Item Bagged", "promoter": "uses Loyalty program opt-in"}
	taken := map[uint32]string{}
	for _, p := range loadgen.Personas {
		most, all := uint32(0), 0
		for cluster, n := range in[p.Name] {
			if all += n; n > in[p.Name][most] {
				most = cluster
			}
		}
		if most == 0 || float64(in[p.Name][most]) < share*float64(all) || 10*all < 9*len(told.Personas)/len(loadgen.Personas) {
			t.Errorf("%s: users by cluster %v, want a share of %g in one", p.Name, in[p.Name], share)
		}
		if taken[most] != "" {
			t.Errorf("%s and %s are one cluster, %d", p.Name, taken[most], most)
		}
		taken[most] = p.Name
		if d := c.descriptions[most]; !strings.Contains(d, words[p.Name]) && (p.Name != "till" || !strings.Contains(d, "uses Item Scanned")) {
			t.Errorf("%s: %q does not say %q", p.Name, c.descriptions[most], words[p.Name])
		}
	}
	return agreement(in)
}

// agreement is the adjusted Rand index (Hubert and Arabie, 1985) of two partitions, given
// how many are in each pair of parts: 1 if they are the same, about 0 by chance.
func agreement(in map[string]map[uint32]int) float64 {
	pairs := func(n int) float64 { return float64(n) * float64(n-1) / 2 }
	var both, a, b float64
	columns, n := map[uint32]int{}, 0
	for _, row := range in {
		sum := 0
		for cluster, k := range row {
			both += pairs(k)
			columns[cluster] += k
			sum += k
		}
		a += pairs(sum)
		n += sum
	}
	for _, k := range columns {
		b += pairs(k)
	}
	chance := a * b / pairs(n)
	return (both - chance) / ((a+b)/2 - chance)
}

// Personas are found whatever the seed of the traffic. One eps for all does not fit each
// of them equally: a third of one may lie outside, and the mean agreement is higher.
func TestPersonasAreFound(t *testing.T) {
	seeds := uint64(4)
	if longtest.Enabled() {
		seeds = 60
	}
	features, err := catalog.Parse(catalogsample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	features.Each(func(_ *catalog.Product, _ *catalog.Module, f *catalog.Feature) { names[f.ID] = f.Name })
	mean := 0.0
	for seed := range seeds {
		c := loadgen.DefaultConfig(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
		c.Seed, c.Events, c.Accounts, c.Stories = seed, 12_000, 60, true
		p, err := loadgen.New(c)
		if err != nil {
			t.Fatal(err)
		}
		cfg := behaviour.DefaultConfig()
		cfg.App, cfg.From, cfg.To = "dev", c.Start.AddDate(0, 0, -21).Format(time.DateOnly), c.Start.AddDate(0, 0, c.Days).Format(time.DateOnly)
		got := cells{map[string]uint32{}, map[uint32]string{}}
		for _, k := range behaviour.Group(behaviours(p), &cfg, names).Clusters {
			got.descriptions[k.Number] = k.Description
			for _, m := range k.Members {
				got.cluster[m.ID] = k.Number
			}
		}
		index := got.check(t, p.Stories, 0.6)
		if t.Failed() {
			t.Fatalf("seed %d: %v", seed, got.descriptions)
		}
		t.Logf("seed %d: adjusted Rand index %.3f", seed, index)
		mean += index / float64(seeds)
	}
	if mean < 0.93 {
		t.Errorf("mean of the adjusted Rand index %.3f, want 0.93 or more", mean)
	}
}

// behaviours are those of the users of a plan in its last 28 days.
func behaviours(p *loadgen.Plan) (units []behaviour.Unit) {
	from, to := p.Config.Start.AddDate(0, 0, -21), p.Config.Start.AddDate(0, 0, p.Config.Days)
	uses, days, last := map[string]map[string]int{}, map[string]map[int]bool{}, map[string]int{}
	for i := range p.Events {
		e := &p.Events[i]
		feature := loadgen.PlaceOf(e.Name).Feature
		if e.Bad != nil || e.User == "" || feature == "" || e.Time.Before(from) {
			continue
		}
		if uses[e.User] == nil {
			uses[e.User], days[e.User] = map[string]int{}, map[int]bool{}
		}
		uses[e.User][feature]++
		day := int(e.Time.Sub(from).Hours() / 24)
		days[e.User][day] = true
		last[e.User] = max(last[e.User], day)
	}
	length := to.Sub(from).Hours() / 24
	for user, of := range uses {
		u := behaviour.Unit{ID: user, Shares: map[string]float64{}, Frequency: float64(len(days[user])) / length, DaysSinceLast: length - 1 - float64(last[user])}
		u.Recency = 1 - u.DaysSinceLast/length
		for _, n := range of {
			u.Events += int64(n)
		}
		for f, n := range of {
			u.Shares[f] = float64(n) / float64(u.Events)
		}
		units = append(units, u)
	}
	return units
}

// planted holds that views find the account that leaves and the one that grows.
func planted(t *testing.T, s store, w *World, told *loadgen.Stories) {
	t.Helper()
	day := func(weeks int) string { return told.From.AddDate(0, 0, 7*weeks).Format(time.DateOnly) }
	view := func(name, from, to string) string {
		return fmt.Sprintf("%s(app = '%s', from = '%s', to = '%s', zone = 'UTC')", name, w.App, from, to)
	}
	for _, tc := range []struct{ query, want string }{
		// Silence, with the traits of the contract.
		{
			"SELECT account_id, traits['renewal_date'], traits['seats'], last_seen_hour < '" + told.Silent.Format(time.DateTime) + "' FROM " + view("account_profile", day(7), day(9)) + " WHERE active_users = 0",
			told.Churned + " " + told.Renewal.Format(time.DateOnly) + " 10 1",
		},
		// Depth before: features that it dropped, and the champion who went.
		{"SELECT count() >= 4, any(account_id), max(people_before) FROM " + view("adoption_changes", day(4), day(7)) + " WHERE change = 'dropped' AND startsWith(account_id, '" + told.Churned + "')", "1 " + told.Churned + " 8"},
		{"SELECT max(event_time) < '" + told.ChampionLeft.Format(time.DateTime) + "', count() > 100 FROM user_timeline(app = '" + w.App + "', from = '" + day(0) + "', to = '" + day(9) + "', zone = 'UTC', user = '" + told.Champion + "')", "1 1"},
		// Failures and tickets.
		{"SELECT step, events, accounts FROM " + view("friction", day(4), day(7)), "event:" + loadgen.PaymentFailed + " " + strconv.Itoa(told.Failures) + " 1"},
		{"SELECT account_id, count() FROM " + view("events_now", day(0), day(9)) + " WHERE event = '" + loadgen.TicketOpened + "' GROUP BY account_id", told.Churned + " " + strconv.Itoa(told.Tickets)},
		// Growth: people beyond the seats, and features that spread.
		{"SELECT account_id, seats, active_users FROM " + view("licence_use", day(8), day(9)) + " ORDER BY utilization DESC NULLS LAST LIMIT 1", told.Expanded + " " + strconv.Itoa(told.Seats[told.Expanded]) + " " + strconv.Itoa(told.ExpandedPeople)},
		{"SELECT countIf(change = 'adopted') >= 3 FROM " + view("adoption_changes", day(4), day(7)) + " WHERE account_id = '" + told.Expanded + "'", "1"},
		{"SELECT count() FROM " + view("adoption_changes", day(3), day(6)) + " WHERE change IN ('adopted', 'dropped') AND account_id IN ('" + strings.Join(told.Crews, "', '") + "')", "0"},
	} {
		var got []string
		for _, r := range s.must(t, tc.query) {
			got = append(got, strings.Join(r, " "))
		}
		if strings.Join(got, "; ") != tc.want {
			t.Errorf("%s\ngot  %q\nwant %q", tc.query, got, tc.want)
		}
	}
}
