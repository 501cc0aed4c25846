package importer

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/instant"
)

// row is what is known of a row beside its event: when it happened, and whose it is.
type row struct {
	zone *time.Location // of texts that name none; nil leaves fields as they are

	at        event.Micros // when the event at hand happened; 0: it does not say so
	ambiguous bool         // at is of a local time that was shown twice

	// claim is a further event that says whose this one's visitor was, nil for none.
	claim []byte
	// unmatched: the export no longer has the id under which it was sent, so it counts
	// twice where it also came live.
	unmatched bool
}

// begin makes it ready for another row.
func (c *row) begin() { *c = row{zone: c.zone} }

// read reads the fields that say when an event happened, of which the first that is
// an instant counts. With a zone they become instants in UTC: texts that name no zone
// and, if local says so, numbers that count the seconds of local time.
func (c *row) read(f fields, local bool, names ...string) {
	for _, name := range names {
		text := f.text(name)
		if text == "" {
			continue
		}
		us, number := instant.Number(text)
		ambiguous, ok := false, true
		switch {
		case number && local && c.zone != nil:
			us, ambiguous = instant.InZone(us, c.zone)
		case !number:
			us, ambiguous, ok = instant.ParseIn(text, c.zone)
		}
		if !ok {
			continue
		}
		if c.at == 0 {
			c.at, c.ambiguous = us, ambiguous
		}
		switch {
		case c.zone == nil || number && !local:
		case number:
			f[name] = json.RawMessage(seconds(us))
		default:
			f.setText(name, event.ToTime(us).Format(time.RFC3339Nano))
		}
	}
}

// mark writes into the event what the gateway has to know of its time.
func (c *row) mark(f fields) {
	delete(f, ingest.AmbiguousField)
	if c.ambiguous {
		f[ingest.AmbiguousField] = json.RawMessage("true")
	}
}

// seconds writes an instant as seconds since the epoch, with decimals if it has any.
func seconds(us event.Micros) string {
	if us%1_000_000 == 0 {
		return strconv.FormatInt(us/1_000_000, 10)
	}
	return strings.TrimRight(strconv.FormatFloat(float64(us)/1e6, 'f', 6, 64), "0")
}
