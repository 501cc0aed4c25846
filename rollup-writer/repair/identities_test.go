package repair_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// exported are the lines of an export of identities, in short.
func (b *bench) exported(withoutErasures bool) (lines []string, err error) {
	b.T.Helper()
	var file bytes.Buffer
	calls, err := repair.ExportIdentities(context.Background(), b.cfg.Config, withoutErasures, b.Log, &file)
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(&file)
	if err != nil {
		b.T.Fatal(err)
	}
	in := json.NewDecoder(zip)
	var head event.KnownHeader
	if err := in.Decode(&head); err != nil || head.Version != event.KnownVersion || head.Personal == "" {
		b.T.Fatalf("header %+v, %v", head, err)
	}
	erased := int64(0)
	for {
		var c event.KnownCall
		if err := in.Decode(&c); err != nil {
			b.T.Fatal(err)
		}
		if c.End != nil {
			if *c.End != int64(len(lines)) || calls != *c.End-erased {
				b.T.Errorf("the end says %d, %d calls, of %d lines", *c.End, calls, len(lines))
			}
			break
		}
		if c.Kind == event.KnownErased {
			erased++
		}
		at := ""
		if !c.At.IsZero() {
			at = c.At.UTC().Format("15:04")
		}
		lines = append(lines, strings.Join([]string{c.AppID, c.Kind, at, c.UserID, c.AnonymousID, c.PreviousID, c.AccountID, c.Role, c.IDKind, c.ID}, "|"))
	}
	if _, err := zip.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		b.T.Errorf("after the end: %v", err)
	}
	return lines, nil
}

// What ClickHouse has of identities is written as the calls that said it, without persons
// who were erased; and not at all where it is not known who was.
func TestExportIdentities(t *testing.T) {
	b := newBench(t)
	b.Exec(`INSERT INTO events (app_id, kind, event, user_id, anonymous_id, previous_id, account_id, account_source, role, event_time, source_offset) VALUES
		('dev', 'identify', '', 'jane', 'phone', '', '', 'none', '', '2026-11-20 01:00:00', 1),
		('dev', 'identify', '', 'jane', 'phone', '', '', 'none', '', '2026-11-20 01:30:00', 2),
		('dev', 'track', 'e', 'jane', 'phone', '', 'acme', 'membership', 'nurse', '2026-11-20 01:40:00', 3),
		('dev', 'group', '', 'jane', '', '', 'acme', 'event', 'nurse', '2026-11-20 02:00:00', 4),
		('dev', 'identify', '', 'joan', 'kiosk', '', '', 'none', '', '2026-11-20 03:00:00', 5),
		('dev', 'identify', '', 'jane', 'kiosk', '', '', 'none', '', '2026-11-20 04:00:00', 6),
		('dev', 'identify', '', 'joan', 'kiosk', '', '', 'none', '', '2026-11-20 05:00:00', 7),
		('dev', 'track', 'e', 'jane', 'kiosk', '', '', 'none', '', '2026-11-20 05:30:00', 8),
		('dev', 'alias', '', 'jane', '', 'j.doe', '', 'none', '', '2026-11-20 06:00:00', 9),
		('dev', 'track', 'e', 'jane', '', '', 'globex', 'event', '', '2026-11-20 06:30:00', 10),
		('dev', 'identify', '', 'u-7', 'tablet', '', 'acme', 'event', 'owner', '2026-11-20 07:00:00', 11),
		('till', 'identify', '', 'u-7', 'till-1', '', '', 'none', '', '2026-11-20 08:00:00', 12)`)
	b.Exec("INSERT INTO identity_unlinks VALUES ('dev', 'anonymous', 'kiosk', 'joan', '2026-11-20 09:00:00')")
	want := []string{
		"dev|identify|01:00|jane|phone|||||", "dev|identify|01:00|jane|phone|||||", // first of the pair, and the first that changed whose it is
		"dev|group|02:00|jane|||acme|nurse||",
		"dev|identify|03:00|joan|kiosk|||||", "dev|identify|03:00|joan|kiosk|||||",
		"dev|identify|04:00|jane|kiosk|||||", "dev|identify|04:00|jane|kiosk|||||",
		"dev|identify|05:00|joan|kiosk|||||", // not the track of jane after it: that claims nothing
		"dev|alias|06:00|jane||j.doe||||", "dev|identify|06:00|jane|j.doe|||||",
		"dev|group|07:00|u-7|||acme|owner||", "dev|identify|07:00|u-7|tablet|||||", "dev|identify|07:00|u-7|tablet|||||",
		"till|identify|08:00|u-7|till-1|||||", "till|identify|08:00|u-7|till-1|||||",
		"dev|unlink|09:00|joan|||||anonymous|kiosk",
	}
	order := func(list []string) []string { // of one instant any
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b string) int {
			x, y := strings.Split(a, "|"), strings.Split(b, "|")
			return strings.Compare(x[2]+a, y[2]+b)
		})
		return list
	}
	got, err := b.exported(false)
	if err != nil || !slices.Equal(order(got), order(want)) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(got[len(got)-1], "|unlink|") {
		t.Errorf("an operator's order is not the last: %q", got)
	}

	b.erasePerson()
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "dev|") && strings.Contains(s, person) })
	if got, err = b.exported(false); err != nil || len(got) == 0 || got[0] != "dev|erased||||||||" || !slices.Equal(order(got[1:]), order(want)) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	if _, err := b.Admin.DeleteTopic(context.Background(), topic.Unprefixed.EnricherState); err != nil {
		t.Fatal(err)
	}
	layout := topic.SingleLayout()
	layout.Partitions, layout.RejectedPartitions = partitions, 1
	if err := topic.Unprefixed.Ensure(context.Background(), b.Admin, layout); err != nil {
		t.Fatal(err)
	}
	if _, err := b.exported(false); !errors.Is(err, erase.ErrUnknown) {
		t.Errorf("without a list of the erased: %v", err)
	}
	if got, err := b.exported(true); err != nil || len(got) == 0 {
		t.Errorf("-without-erasures: %q, %v", got, err)
	}
}
