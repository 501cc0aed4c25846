package topic

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestNamesBeginWithThePrefix(t *testing.T) {
	n := NewNames("staging.")
	for _, tc := range []struct{ got, want string }{
		{n.Raw, "staging.uptake.raw.v1"},
		{n.KnownIDs, "staging.uptake.known-ids.v1"},
		{n.GroupEnricher, "staging.uptake.enricher.v1"},
		{n.GroupRollupWriter, "staging.uptake.rollup-writer.v1"},
		{n.GroupAlerts, "staging.uptake.alerts.v1"},
		{n.Base(n.Enriched), "uptake.enriched.v1"},
		{n.Base("prod.uptake.raw.v1"), "prod.uptake.raw.v1"},
		{Unprefixed.Rejected, "uptake.rejected.v1"},
		{Unprefixed.Base(Unprefixed.Raw), "uptake.raw.v1"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

// No name is forgotten: each field begins with the prefix, each topic is made, and
// names of topics differ.
func TestEveryNameIsOfTheInstallation(t *testing.T) {
	n := NewNames("p-")
	var made []string
	for _, s := range n.Specs(SingleLayout()) {
		made = append(made, s.Name)
	}
	var topics []string
	for v, i := reflect.ValueOf(*n), 0; i < v.NumField(); i++ {
		field, name := v.Type().Field(i).Name, v.Field(i).String()
		switch {
		case field == "Prefix":
		case !strings.HasPrefix(name, "p-uptake."):
			t.Errorf("%s is %q, without the prefix", field, name)
		case strings.HasPrefix(field, "Group"):
		default:
			topics = append(topics, name)
		}
	}
	slices.Sort(made)
	slices.Sort(topics)
	if !slices.Equal(made, topics) {
		t.Errorf("topics made: %v\nnamed: %v", made, topics)
	}
	if len(slices.Compact(topics)) < 12 {
		t.Errorf("names of topics are not different: %v", topics)
	}
}

func TestValidatePrefix(t *testing.T) {
	for _, prefix := range []string{"", "staging.", "a_b-C.9", strings.Repeat("x", 200)} {
		if err := ValidatePrefix(prefix); err != nil {
			t.Errorf("ValidatePrefix(%q) = %v", prefix, err)
		}
		// Kafka's bound.
		for _, s := range NewNames(prefix).Specs(SingleLayout()) {
			if len(s.Name) > 249 {
				t.Errorf("%s has %d bytes", s.Name, len(s.Name))
			}
		}
	}
	for prefix, want := range map[string]string{
		"sta ging":               `kafka-prefix may have only`,
		"a/b":                    `(got "a/b")`,
		"ü":                      `(got "ü")`,
		strings.Repeat("x", 201): `kafka-prefix must have at most 200 bytes (got 201)`,
	} {
		if err := ValidatePrefix(prefix); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ValidatePrefix(%q) = %v, want %q", prefix, err, want)
		}
	}
}

// Two installations on one cluster, and what a wrong prefix is told.
func TestInstallationsShareACluster(t *testing.T) {
	ctx, adm := context.Background(), admin(t)
	staging, other := NewNames("staging."), NewNames("prod.")
	for _, n := range []*Names{Unprefixed, staging} {
		if err := n.Ensure(ctx, adm, SingleLayout()); err != nil {
			t.Fatal(err)
		}
	}
	a, err := Unprefixed.Check(ctx, adm, Unprefixed.Raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := staging.Check(ctx, adm, staging.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if a[Unprefixed.Raw].ID == b[staging.Raw].ID {
		t.Error("both have the same topic")
	}
	_, err = other.check(ctx, adm, other.Raw, other.Enriched)
	if err == nil {
		t.Fatal("check passed of topics that were not made")
	}
	for _, want := range []string{
		"prod.uptake.raw.v1: topic does not exist; make the topics with `enricher topics apply`", "prod.uptake.enriched.v1: topic does not exist",
		`kafka-prefix is "prod.", and the cluster has topics with kafka-prefix "staging.", ""`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}
