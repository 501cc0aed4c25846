package importer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// persons brings together what an export says of the same person under several ids.
// Exports have events under the id by which they were sent, so that those that also
// came live are counted once, and beside it the person to which the source gave them
// later. Where no event of the export says the same, as of persons that were merged by
// hand, a claim does: the visitor was that user.
type persons struct {
	users  map[string]string   // identified id by person; "" is of several
	linked map[string]struct{} // visitors' ids that the export itself ties to a user, or a claim did

	learning bool // the export is read for the first time: no claims are made
}

func newPersons() *persons {
	return &persons{users: map[string]string{}, linked: map[string]struct{}{}}
}

// maxPersons bounds the memory of it. Beyond, visitors stay visitors.
const maxPersons = 1_000_000

// user notes that the person was seen under an id that is a user's.
func (p *persons) user(person, user string) {
	switch known, ok := p.users[person]; {
	case person == "" || user == "":
	case ok && known != user:
		p.users[person] = ""
	case !ok && len(p.users) < maxPersons:
		p.users[person] = user
	}
}

// link notes that an event of the export ties a visitor's id to a user.
func (p *persons) link(visitor string) {
	if visitor != "" && len(p.linked) < maxPersons {
		p.linked[visitor] = struct{}{}
	}
}

// claim returns the user whose a visitor was, once, and the id of a message that says
// so; "" where the export says it itself or does not know.
func (p *persons) claim(person, visitor string) (user, id string) {
	if _, done := p.linked[visitor]; done || p.learning || visitor == "" || p.users[person] == "" || len(p.linked) >= maxPersons {
		return "", ""
	}
	p.linked[visitor] = struct{}{}
	user = p.users[person]
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q", visitor, user))
	return user, "import-claim-" + hex.EncodeToString(h[:16])
}

// truth reads a field that is true, or false or absent.
func (f fields) truth(name string) (yes, no bool) {
	v := strings.Trim(string(f[name]), `"`)
	return v == "true", v == "false"
}

// posthog reads what an event of PostHog's says of its person, and returns the claim
// that it needs.
func (p *persons) posthog(f fields, r *row) {
	person, id := f.text("person_id"), f.text("distinct_id")
	if id == "" && person != "" { // the export no longer has the id under which it was sent
		if id = p.users[person]; id == "" {
			id = person
		}
		f.setText("distinct_id", id)
		r.unmatched = true
		return
	}
	props, err := read(f["properties"])
	if err != nil {
		return
	}
	identified, visitor := props.truth("$is_identified")
	if device := props.text("$device_id"); !identified && device != "" && device == id {
		visitor = true
	}
	if _, personless := props.truth("$process_person_profile"); personless {
		return
	}
	switch f.text("event") {
	case "$identify":
		p.link(props.text("$anon_distinct_id"))
		identified = true
	case "$create_alias", "$merge_dangerously":
		p.link(props.text("alias"))
		return
	}
	if identified {
		p.user(person, id)
		return
	}
	if !visitor {
		return
	}
	if user, message := p.claim(person, id); user != "" {
		claim := fields{"timestamp": f["timestamp"]}
		claim.setText("event", "$identify")
		claim.setText("distinct_id", user)
		claim.setText("uuid", message)
		said := fields{}
		said.setText("$anon_distinct_id", id)
		claim["properties"], _ = said.write() // of a string
		r.claim, _ = claim.write()            // of strings and what was read
	}
}

// amplitude does so of Amplitude's: https://amplitude.com/docs/data/sources/amplitude-id-assignment.
func (p *persons) amplitude(f fields, r *row) {
	person, user, device := f.text("amplitude_id"), f.text("user_id"), f.text("device_id")
	if user != "" {
		p.user(person, user)
		p.link(device)
		return
	}
	if user, message := p.claim(person, device); user != "" {
		claim := fields{"device_id": f["device_id"], "time": f["time"]}
		claim.setText("event_type", "$identify")
		claim.setText("user_id", user)
		claim.setText("insert_id", message)
		r.claim, _ = claim.write() // of strings and what was read
	}
}
