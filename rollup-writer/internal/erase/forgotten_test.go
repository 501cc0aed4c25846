package erase

import (
	"reflect"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// forgotJane remembers user jane and anonymous device, each under a key of its
// own: two first orders may be given at the same moment.
func forgotJane() *Forgotten {
	f := &Forgotten{sets: map[string]*forgottenSet{}}
	for i, id := range []struct {
		kind byte
		id   string
	}{{topic.KeyUser, "jane"}, {topic.KeyAnonymous, "device"}} {
		key := []byte(strings.Repeat(string(rune('a'+i)), event.EraseKeyBytes))
		h := event.NewEraseHasher(key).Hash(id.kind, id.id)
		f.add(&event.ErasedIDs{Key: key, Hashes: [][]byte{h[:], []byte("too short")}})
	}
	return f
}

func TestScrub(t *testing.T) {
	full := func(change func(*event.EnrichedEvent)) event.EnrichedEvent {
		e := event.EnrichedEvent{
			AppID: "shop", Kind: event.KindTrack, Event: "e", MessageID: "m", AccountID: "acme", AccountSource: "event", Role: "clerk", FeatureID: "f", Quantity: 3,
			Properties: []byte(`{"a":1}`), Traits: []byte(`{"b":1}`), Metric: []byte("x"), Context: []byte("c"), Conflicts: []byte("k"),
			SessionID: "s", IP: "192.0.2.1", UserAgent: "ua", Protocol: "segment", RawOffset: 7,
			Client: event.Client{Country: "AT", Browser: "b", OS: "o", DeviceClass: "mobile", Referrer: "r", UTMSource: "s", UTMMedium: "m", UTMCampaign: "c"},
		}
		change(&e)
		return e
	}
	nameless := full(func(e *event.EnrichedEvent) {
		e.ActorKind, e.MessageID, e.SessionID, e.IP, e.UserAgent, e.Role = event.ActorErased, "", "", "", "", ""
		e.Client = event.Client{}
		e.Properties, e.Traits, e.Metric, e.Context, e.Conflicts = []byte("{}"), []byte("{}"), nil, nil, nil
	})
	of := func(user, anonymous, linked, previous, actor, kind string) event.EnrichedEvent {
		return full(func(e *event.EnrichedEvent) {
			e.UserID, e.AnonymousID, e.LinkedUserID, e.PreviousID, e.ActorID, e.ActorKind = user, anonymous, linked, previous, actor, kind
		})
	}
	for name, tc := range map[string]struct{ is, want event.EnrichedEvent }{
		"of the user":                       {of("jane", "", "", "", "jane", event.ActorUser), nameless},
		"of the user, then aliased":         {of("jane", "", "", "", "joan", event.ActorUser), nameless},
		"of an alias of the user":           {of("before", "", "", "", "jane", event.ActorUser), nameless},
		"of the device":                     {of("", "device", "", "", "device", event.ActorAnonymous), nameless},
		"of a shared device, linked":        {of("", "kiosk", "jane", "", "jane", event.ActorUser), nameless},
		"of somebody else on the device":    {of("joan", "device", "", "", "joan", event.ActorUser), of("joan", "", "", "", "joan", event.ActorUser)},
		"of somebody else with the alias":   {of("joan", "", "", "jane", "joan", event.ActorUser), of("joan", "", "", "", "joan", event.ActorUser)},
		"of somebody else":                  {of("joan", "kiosk", "", "", "joan", event.ActorUser), of("joan", "kiosk", "", "", "joan", event.ActorUser)},
		"of a user with the device's name":  {of("device", "", "", "", "device", event.ActorUser), of("device", "", "", "", "device", event.ActorUser)},
		"of a device with the user's name":  {of("", "jane", "", "", "jane", event.ActorAnonymous), of("", "jane", "", "", "jane", event.ActorAnonymous)},
		"of an account":                     {of("", "", "", "", "", event.ActorAccount), of("", "", "", "", "", event.ActorAccount)},
		"of nobody any more, so written":    {of("", "", "", "", "", event.ActorErased), of("", "", "", "", "", event.ActorErased)},
		"of a device that was one's of old": {of("", "device", "joan", "", "joan", event.ActorUser), nameless},
	} {
		got := tc.is
		changed := forgotJane().Scrub(&got)
		if !reflect.DeepEqual(got, tc.want) || changed != !reflect.DeepEqual(tc.is, tc.want) {
			t.Errorf("an event %s:\ngot  %+v, changed %v\nwant %+v", name, got, changed, tc.want)
		}
	}
}

func TestErasedInText(t *testing.T) {
	f := forgotJane()
	h := event.NewEraseHasher([]byte(strings.Repeat("n", event.EraseKeyBytes))).Hash(topic.KeyUser, "4711")
	f.add(&event.ErasedIDs{Key: []byte(strings.Repeat("n", event.EraseKeyBytes)), Hashes: [][]byte{h[:]}})
	for text, want := range map[string]bool{
		`{"userId":"jane"}`:               true,
		`{"userId":"j\u0061ne"}`:          true,
		`{"anonymousId": "device" `:       true,
		`{"userId":4711}`:                 true,
		`{"userId":"janet","a":"\"jane"}`: false,
		`{"userId":47110}`:                false,
		`jane`:                            false,
		"":                                false,
	} {
		if got := f.in(text); got != want {
			t.Errorf("in %s: got %v, want %v", text, got, want)
		}
	}
}

// What is masked is masked alike in events and in control records, so that moves find
// what they did when the log was read first; nobody else is changed.
func TestMask(t *testing.T) {
	list := &Erasures{apps: map[string]*Forgotten{"shop": forgotJane()}}
	jane, device := list.Of("shop").mask(topic.KeyUser, "jane"), list.Of("shop").mask(topic.KeyAnonymous, "device")
	if jane == device || !strings.HasPrefix(jane, maskPrefix) || !strings.HasPrefix(device, maskPrefix) || jane == list.Of("shop").mask(topic.KeyAnonymous, "jane") {
		t.Fatalf("masks %s and %s", jane, device)
	}
	text := func(s string) *string { return &s }
	e := event.EnrichedEvent{
		AppID: "shop", Kind: event.KindIdentify, MessageID: "m", UserID: "jane", AnonymousID: "device", ActorID: "jane", ActorKind: event.ActorUser, AccountID: "acme", Role: "r",
		Properties: []byte(`{"a":1}`), Traits: []byte(`{"b":1}`), Context: []byte("c"), Conflicts: []byte("k"), SessionID: "s", IP: "192.0.2.1", UserAgent: "ua", RawOffset: 7,
		Client: event.Client{Country: "AT", UTMCampaign: "to-jane"},
	}
	list.Event(&e)
	want := event.EnrichedEvent{
		AppID: "shop", Kind: event.KindIdentify, MessageID: e.MessageID, UserID: jane, AnonymousID: device, ActorID: jane, ActorKind: event.ActorUser, AccountID: "acme", Role: e.Role,
		Properties: []byte("{}"), Traits: []byte("{}"), RawOffset: 7,
	}
	if !reflect.DeepEqual(e, want) || e.MessageID == "m" || e.MessageID == "" || e.Role == "r" || e.Role == "" {
		t.Errorf("got %+v\nwant %+v", e, want)
	}
	role := e.Role
	// Of somebody else, on the device and after an alias: only the ids are masked.
	e = event.EnrichedEvent{AppID: "shop", UserID: "joan", AnonymousID: "device", PreviousID: "jane", ActorID: "joan", ActorKind: event.ActorUser, MessageID: "m", Properties: []byte("p")}
	list.Event(&e)
	if want := (event.EnrichedEvent{AppID: "shop", UserID: "joan", AnonymousID: device, PreviousID: jane, ActorID: "joan", ActorKind: event.ActorUser, MessageID: "m", Properties: []byte("p")}); !reflect.DeepEqual(e, want) {
		t.Errorf("got %+v\nwant %+v", e, want)
	}
	// The account's traits stay the account's.
	e = event.EnrichedEvent{AppID: "shop", Kind: event.KindGroup, UserID: "jane", Traits: []byte(`{"plan":"pro"}`)}
	if list.Event(&e); string(e.Traits) != `{"plan":"pro"}` {
		t.Errorf("traits of the account are %s", e.Traits)
	}
	for _, other := range []event.EnrichedEvent{
		{AppID: "till", UserID: "jane", ActorID: "jane", ActorKind: event.ActorUser, Properties: []byte("p")},
		{AppID: "shop", UserID: "device", ActorID: "device", ActorKind: event.ActorUser, Properties: []byte("p")},
	} {
		got := other
		if list.Event(&got); !reflect.DeepEqual(got, other) {
			t.Errorf("got %+v\nwant %+v", got, other)
		}
	}
	m := event.Moves{
		Moves: []event.Move{
			{Match: event.Attribution{ActorID: text("device"), ActorKind: text(event.ActorAnonymous)}, Set: event.Attribution{ActorID: text("jane"), ActorKind: text(event.ActorUser), UserID: text("jane")}},
			{Match: event.Attribution{ActorID: text("jane"), AnonymousID: text("device")}, Set: event.Attribution{AccountID: text("jane"), Role: text("r")}},
			{Match: event.Attribution{FeatureID: text("jane"), Role: text("")}, Set: event.Attribution{Role: text("r")}},
		},
		Reason: &event.Reason{Kind: event.ReasonUnlink, IDKind: event.ActorAnonymous, ID: "device", UserID: "jane"},
	}
	list.Moves("shop", &m)
	if want := (event.Moves{
		Moves: []event.Move{
			{Match: event.Attribution{ActorID: &device, ActorKind: text(event.ActorAnonymous)}, Set: event.Attribution{ActorID: &jane, ActorKind: text(event.ActorUser), UserID: &jane}},
			{Match: event.Attribution{ActorID: &jane, AnonymousID: &device}, Set: event.Attribution{AccountID: text("jane"), Role: &role}},
			{Match: event.Attribution{FeatureID: text("jane"), Role: text("")}, Set: event.Attribution{Role: text("r")}},
		},
		Reason: &event.Reason{Kind: event.ReasonUnlink, IDKind: event.ActorAnonymous, ID: device, UserID: jane},
	}); !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v\nwant %+v", m, want)
	}
	codec := event.NewCodec()
	raw := func(user, properties string) []byte {
		return codec.AppendRaw(nil, &event.RawEvent{AppID: "shop", UserID: user, Properties: []byte(properties)})
	}
	for _, tc := range []struct {
		app, stage string
		original   []byte
		left       bool
	}{
		{"shop", event.StageGateway, []byte(`{"userId":"jane"}`), false},
		{"shop", event.StageGateway, []byte(`{"userId":"joan"}`), true},
		{"till", event.StageGateway, []byte(`{"userId":"jane"}`), true},
		{"shop", event.StageEnricher, raw("jane", "{}"), false},
		{"shop", event.StageEnricher, raw("", `{"of":"jane"}`), false},
		{"shop", event.StageEnricher, raw("joan", "{}"), true},
		{"shop", event.StageEnricher, []byte("unreadable"), false},
	} {
		r := event.Rejected{AppID: tc.app, Stage: tc.stage, Original: tc.original, Detail: "d", MessageID: "m"}
		list.Rejected(codec, &r)
		if left := len(r.Original) > 0; left != tc.left || left != (r.Detail == "d") {
			t.Errorf("%s of %s: bytes left: %v, want %v", tc.original, tc.app, left, tc.left)
		}
	}
}
