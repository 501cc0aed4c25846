package rollup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/topic"
)

// TestNotesAreCopied changes and deletes annotations between two writers, and makes the
// topic anew: the version that was written last counts, although its offset is lower.
func TestNotesAreCopied(t *testing.T) {
	b := newBench(t)
	b.init()
	at := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	n := 0
	write := func(app, id, text string) {
		t.Helper()
		n++
		v := note.Note{App: app, Kind: note.KindAnnotation, ID: id, By: fmt.Sprintf("by%d", n), Written: at}
		if v.Removed = text == ""; !v.Removed {
			v.Annotation = &note.Annotation{At: at, Category: "release", Text: text}
		}
		produce(t, b.Client, topic.Unprefixed.Notes, v.Key(), &v, v.Written)
	}
	people := "`" + b.Schema.Database + "`."
	is := func(want ...string) {
		t.Helper()
		query := "SELECT concatWithSeparator(' ', app_id, id, toString(at), toString(whole_day), category, text, author, toString(written_at)) FROM " + people + "annotations"
		b.Await(strings.Join(want, ", "), func() bool { return slices.Equal(b.strings(query), want) })
	}
	const when = "2026-11-20 09:30:00.000"
	write("dev", "r1", "release 1")
	write("dev", "r2", "release 2")
	write("other", "r1", "theirs")
	write("dev", "r1", "release 1.1")
	if err := b.Client.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Unprefixed.Notes, Key: []byte("k"), Value: []byte("no JSON")}, &kgo.Record{Topic: topic.Unprefixed.Notes, Key: []byte("k")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w := b.start()
	is("dev r1 "+when+" 0 release release 1.1 by4 "+when, "dev r2 "+when+" 0 release release 2 by2 "+when, "other r1 "+when+" 0 release theirs by3 "+when)
	w.End()

	b.start()
	write("dev", "r2", "")
	write("other", "r1", "")
	write("other", "r1", "theirs again")
	is("dev r1 "+when+" 0 release release 1.1 by4 "+when, "other r1 "+when+" 0 release theirs again by7 "+when)
	if got, want := b.Number("SELECT count() FROM notes"), 7; int(got) > want {
		t.Errorf("%v rows, want at most %d: the second writer wrote what the first one had", got, want)
	}
}

// TestLooksAreCopied: each record is one row, with two writers after one another.
func TestLooksAreCopied(t *testing.T) {
	b := newBench(t)
	b.init()
	at := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	look := func(l note.Look) {
		t.Helper()
		l.App, l.At = "dev", at
		produce(t, b.Client, topic.Unprefixed.Looks, "", l, at)
	}
	is := func(want ...string) {
		t.Helper()
		query := "SELECT concatWithSeparator(' ', app_id, toString(looked_at), viewer, person_id, account_id) FROM `" + b.Schema.Database + "`.who_looked"
		b.Await(strings.Join(want, ", "), func() bool { return slices.Equal(b.strings(query), want) })
	}
	const when = "dev 2026-11-20 09:30:00.000 "
	look(note.Look{Viewer: "joan", Person: "maria"})
	look(note.Look{Person: "of nobody"}) // no release writes that
	w := b.start()
	is(when + "joan maria ")
	w.End()
	b.start()
	look(note.Look{Viewer: "jim", Account: "acme"})
	is(when+"joan maria ", when+"jim  acme")
}

// TestNotesOfATopicMadeAnew: a version counts although its offset is lower than that of
// an earlier version in the topic before.
func TestNotesOfATopicMadeAnew(t *testing.T) {
	b := newBench(t)
	b.init()
	at := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	write := func(text string) {
		t.Helper()
		v := note.Note{App: "dev", Kind: note.KindAnnotation, ID: "r1", Written: at, Annotation: &note.Annotation{At: at, Category: "release", Text: text}}
		produce(t, b.Client, topic.Unprefixed.Notes, v.Key(), &v, at)
	}
	is := func(want string) {
		t.Helper()
		b.Await(want, func() bool {
			return slices.Equal(b.strings("SELECT text FROM `"+b.Schema.Database+"`.annotations"), []string{want})
		})
	}
	write("one")
	write("two")
	w := b.start()
	is("two")
	w.End()
	admin := kadm.NewClient(b.Client)
	if _, err := admin.DeleteTopics(t.Context(), topic.Unprefixed.Notes); err != nil {
		t.Fatal(err)
	}
	if err := topic.Unprefixed.Ensure(t.Context(), admin, topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	b.Client.PurgeTopicsFromClient(topic.Unprefixed.Notes)
	w = b.start()
	write("three")
	is("three")
	w.End()
	b.start()
	write("four")
	is("four")
}
