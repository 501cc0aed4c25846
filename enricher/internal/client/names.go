package client

// name is what a key stands for.
type name struct {
	field  field
	rank   uint8 // the lowest that has a value counts; 0 is none
	pages  bool  // of page and screen calls only: elsewhere the word may mean anything
	within *table
}

type names = map[string]*name

// table finds keys. Nearly all keys of events are none of these: likely has a bit for
// the length of each known key that begins with a byte, so that most are not hashed.
type table struct {
	byKey  names
	likely [256]uint64
}

func tableOf(n names) *table {
	t := &table{byKey: n}
	for key := range n {
		t.likely[key[0]] |= 1 << len(key) // all are shorter than 64 bytes
	}
	return t
}

// find returns what a key stands for, nil for nothing.
func (t *table) find(key []byte) *name {
	if len(key) == 0 || t.likely[key[0]]>>len(key)&1 == 0 {
		return nil
	}
	return t.byKey[view(key)]
}

func is(f field, rank uint8) *name     { return &name{field: f, rank: rank} }
func of(within names) *name            { return &name{within: tableOf(within)} }
func onPage(f field, rank uint8) *name { return &name{field: f, rank: rank, pages: true} }

// contextNames are the keys of the context: of Segment's and RudderStack's SDKs, of
// what the gateway makes of other protocols, and, as they are, the fields beside the
// properties of an event of Amplitude, Moesif and Gainsight PX, and the attributes of
// an OTLP resource.
var contextNames = tableOf(names{
	"page": of(names{
		"url": is(page, 1), "referrer": is(referrer, 1), "search": is(search, 1),
	}),
	"referrer": of(names{"url": is(referrer, 2)}),
	"campaign": of(names{
		"source": is(source, 1), "medium": is(medium, 1), "name": is(campaign, 1),
	}),
	"os":       of(names{"name": is(system, 1)}),
	"browser":  {field: browser, rank: 2, within: tableOf(names{"name": is(browser, 1)})},
	"device":   of(names{"type": is(device, 1), "model": is(model, 1)}),
	"location": of(names{"country": is(country, 1), "countryCode": is(country, 2)}),
	"userAgentData": of(names{
		"platform": is(system, 2), "mobile": is(mobile, 1),
	}),

	// Amplitude
	"country": is(country, 3), "platform": is(platform, 1), "os_name": is(platformName, 1),
	"device_family": is(model, 3), "device_type": is(model, 4), "device_model": is(model, 5),

	// Moesif: the page on which an action happened
	"request": of(names{"uri": is(page, 2)}),

	// Gainsight PX
	"inferredLocation": of(names{"countryCode": is(country, 1), "countryName": is(country, 2)}),

	// OpenTelemetry. os.name is not read: of a server's resource it is the server's.
	"resource": of(names{
		"browser.platform": is(system, 3), "browser.mobile": is(mobile, 2),
		"geo.country.iso_code": is(country, 4), "device.model.name": is(model, 6),
	}),
})

// propertyNames are the keys of properties: of PostHog and Mixpanel, which have all
// there, of Amplitude's attribution, and the attributes of OTLP records. Plain words
// such as country are not read: of an order they mean the order's.
var propertyNames = tableOf(names{
	"$browser": is(browser, 3), "$os": is(system, 4), "$os_name": is(system, 5), "$device_type": is(device, 2), "$device": is(model, 7),
	"$geoip_country_code": is(country, 5), "mp_country_code": is(country, 6), "$country_code": is(country, 7),
	"$referrer": is(referrer, 3), "$referring_domain": is(referrer, 4), "$current_url": is(page, 3), "$host": is(host, 1),
	"utm_source": is(source, 2), "utm_medium": is(medium, 2), "utm_campaign": is(campaign, 2),

	// Segment's page calls
	"referrer": onPage(referrer, 5), "url": onPage(page, 4), "search": onPage(search, 2),

	// Amplitude
	"[Amplitude] Page Location": is(page, 5), "[Amplitude] Page URL": is(page, 6),

	// OpenTelemetry
	"user_agent.name": is(browser, 4), "user_agent.os.name": is(system, 6), "os.name": is(system, 7),
	"browser.platform": is(system, 8), "browser.mobile": is(mobile, 3), "geo.country.iso_code": is(country, 8),
	"device.model.name": is(model, 8), "url.full": is(page, 7), "http.request.header.referer": is(referrer, 6),
})
