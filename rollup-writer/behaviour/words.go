package behaviour

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// What counts as setting a cluster apart.
const (
	mostFeatures = 4    // that are named
	leastShare   = 0.02 // of a feature, in the cluster or the rest
	leastRatio   = 1.5  // between the two shares, or frequencies
	seldom       = 5    // times less often than the rest
	hardly       = 20   // times less often than the cluster
	leastDays    = 0.1  // between two frequencies, as a share of the days
	leastRecency = 0.2  // between two recencies
)

// describe says in words what sets a cluster apart from the rest: the features whose
// shares differ most, as the distance between the two means has it, and how often and
// how recently the product is used at all.
func describe(k *Cluster, c *Config, names map[string]string) string {
	if k.Rest.Units == 0 {
		return "all that were grouped: there is no rest to compare with"
	}
	said := slices.Concat(features(k, names), days(k, c))
	if len(said) == 0 {
		said = []string{"differs little from the rest"}
	}
	if k.Number == 0 {
		return "in no cluster; on average: " + strings.Join(said, "; ")
	}
	return strings.Join(said, "; ")
}

func features(k *Cluster, names map[string]string) (said []string) {
	type difference struct {
		feature    string
		own, rest  float64
		importance float64
	}
	var all []difference
	for _, f := range sortedKeys(union(k.Mean.Shares, k.Rest.Shares)) {
		d := difference{feature: f, own: k.Mean.Shares[f], rest: k.Rest.Shares[f]}
		if max(d.own, d.rest) < leastShare || (d.own < leastRatio*d.rest && d.rest < leastRatio*d.own) {
			continue
		}
		d.importance = math.Abs(math.Sqrt(d.own) - math.Sqrt(d.rest))
		all = append(all, d)
	}
	slices.SortStableFunc(all, func(a, b difference) int { return cmp.Compare(b.importance, a.importance) })
	for _, d := range all[:min(len(all), mostFeatures)] {
		said = append(said, compareShares(cmp.Or(names[d.feature], d.feature), d.own, d.rest))
	}
	return said
}

// compareShares is a part of the description about one feature.
func compareShares(name string, own, rest float64) string {
	of := fmt.Sprintf("(%s of 100 events, the rest %s)", hundredth(own), hundredth(rest))
	switch {
	case own == 0:
		return fmt.Sprintf("never uses %s (the rest %s of 100 events)", name, hundredth(rest))
	case own < rest/seldom:
		return fmt.Sprintf("seldom uses %s %s", name, of)
	case own < rest:
		return fmt.Sprintf("uses %s less %s", name, of)
	case own > hardly*rest:
		return fmt.Sprintf("uses %s, which the rest hardly does %s", name, of)
	}
	return fmt.Sprintf("uses %s %.1f times as often as the rest %s", name, own/rest, of)
}

// hundredth is a share as a number of 100: small ones with a decimal.
func hundredth(share float64) string {
	if n := 100 * share; n > 0 && n < 9.5 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0")
	}
	return fmt.Sprintf("%.0f", 100*share)
}

func days(k *Cluster, c *Config) (said []string) {
	length := c.days()
	own, rest := k.Mean.Frequency, k.Rest.Frequency
	if math.Abs(own-rest) >= leastDays && max(own, rest) >= leastRatio*min(own, rest) {
		word := "more"
		if own < rest {
			word = "fewer"
		}
		said = append(said, fmt.Sprintf("comes on %s days (%.1f of %d, the rest %.1f)", word, own*length, int(length), rest*length))
	}
	if math.Abs(k.Mean.Recency-k.Rest.Recency) >= leastRecency {
		said = append(said, fmt.Sprintf("last came %.1f days before the end of the range on average, the rest %.1f", k.Mean.DaysSinceLast, k.Rest.DaysSinceLast))
	}
	return said
}

func union(a, b map[string]float64) map[string]bool {
	all := map[string]bool{}
	for f := range a {
		all[f] = true
	}
	for f := range b {
		all[f] = true
	}
	return all
}
