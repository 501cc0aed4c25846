package analytics

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/uptakehq/uptake/test/loadgen"
)

// FromPlan returns the world that is left when all of a plan went through: its
// distinct good events, each for whom it counts in the end.
func FromPlan(app string, p *loadgen.Plan) (*World, error) {
	w := &World{
		App: app, Zone: "Europe/Vienna", From: p.Config.Start.Format(time.DateOnly), To: p.Config.Start.AddDate(0, 0, p.Config.Days).Format(time.DateOnly),
		UserTraits: map[string]map[string]string{}, AccountTraits: map[string]map[string]string{},
	}
	var stored []*loadgen.Event
	for i := range p.Events {
		if p.Events[i].Bad == nil {
			stored = append(stored, &p.Events[i])
		}
	}
	for i, of := range loadgen.Resolved(stored) {
		e := stored[i]
		if (e.Kind == "identify" || e.Kind == "group") && e.User != "" && e.Account != "" {
			w.Members = append(w.Members, Member{e.User, e.Account, e.Role, e.Time})
		}
		switch e.Kind {
		case "identify", "group":
			of, id := w.UserTraits, e.User
			if e.Kind == "group" {
				of, id = w.AccountTraits, e.Account
			}
			var traits map[string]any
			if err := json.Unmarshal([]byte(e.Props), &traits); err != nil {
				return nil, fmt.Errorf("traits of %s: %w", e.MessageID, err)
			}
			if of[id] == nil {
				of[id] = map[string]string{}
			}
			for k, v := range traits {
				of[id][k] = fmt.Sprint(v)
			}
		case "track", "page", "screen":
			place := loadgen.PlaceOf(e.Name)
			now := Whom{
				User: e.User, Account: of.Account, AccountSource: "event", Actor: of.Actor, ActorKind: of.ActorKind, Role: of.Role,
				Feature: place.Feature, Module: place.Module, Product: place.Product,
			}
			w.Events = append(w.Events, Event{
				Kind: e.Kind, Name: e.Name, Time: e.Time, Quantity: max(e.Quantity, 1), User: e.User, Anonymous: e.Anonymous, Offset: int64(i),
				Properties: strings.ReplaceAll(e.Props, "store.name", "store_name"), Arrival: now, Now: now,
			})
		}
	}
	return w, nil
}
