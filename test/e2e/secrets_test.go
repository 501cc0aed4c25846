package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/verdict"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// Where an app's privacy rules are. Of an app in the rules file of one place the file of
// the other says none.
const (
	nowhere    = "nowhere"
	inGateway  = "gateway"
	inEnricher = "enricher"
	inBoth     = "both"
)

// Kinds of secrets: what a rule can be about. keptText is in no rule, credentials are
// stored nowhere, whatever the rules say, and unreadable is in what was rejected where rules
// cannot be applied: in what is no object, and around the event. Every app with rules loses
// it.
const (
	userAgent   = "agent"
	address     = "ip"
	dropped     = "drop"
	hashed      = "hash"
	maskedText  = "mask"
	anEmail     = "email"
	aCard       = "card"
	aPhone      = "phone"
	aToken      = "token"
	optedOut    = "gone"
	keptText    = "kept"
	credentials = "never"
	unreadable  = "unreadable"
)

// rulesOf are the lines of the rules file for each kind. They name every object of an event
// in which places plants secrets.
var rulesOf = map[string]string{
	userAgent:  "user_agent: drop",
	address:    "ip: none",
	dropped:    rulesFor("card_holder", "action: drop"),
	hashed:     rulesFor("pin", "action: hash"),
	maskedText: rulesFor("message", "action: mask"),
	anEmail:    rulesFor("**", "detect: [email], action: mask"),
	aCard:      rulesFor("**", "detect: [card], action: drop"),
	aPhone:     rulesFor("**", "detect: [phone], action: hash"),
	aToken:     rulesFor("**", "detect: [token], action: mask"),
	optedOut:   "opt_out: {users: [gone-user], anonymous: [gone-device], accounts: [gone-account]}",
}

// rulesFor returns a rule for a key of each object, and for that key in the objects within:
// operators on traits, headers and bodies of API calls, attributes of resources and scopes.
func rulesFor(key, rest string) string {
	var lines []string
	for _, object := range []string{"properties.", "traits.", "context."} {
		for depth := range 4 {
			if key != "**" || depth == 0 {
				lines = append(lines, fmt.Sprintf(`- {path: "%s%s%s", %s}`, object, strings.Repeat("*.", depth), key, rest))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// planted is one secret: a text that occurs once in all that is sent.
type planted struct {
	app, kind string
	request   string // where it was planted
	rejected  bool   // its event is one that a service rejects
}

// private is an app and its rules.
type private struct {
	id    string
	place string
	kinds []string // that its rules are about
}

func (p *private) removes(kind string) bool {
	return slices.Contains(p.kinds, kind) || kind == credentials || kind == unreadable && len(p.kinds) > 0
}

// privateApps are the apps of the fast form: all rules at once, in each place.
func privateApps() []private {
	apps := []private{{id: "secrets-" + nowhere, place: nowhere}}
	for _, place := range []string{inGateway, inEnricher, inBoth} {
		apps = append(apps, private{"secrets-" + place, place, slices.Sorted(maps.Keys(rulesOf))})
	}
	return apps
}

// singleRules are the apps of the long form: one rule each, in each place.
func singleRules() []private {
	apps := []private{{id: "secrets-" + nowhere, place: nowhere}}
	for _, place := range []string{inGateway, inEnricher, inBoth} {
		for _, kind := range slices.Sorted(maps.Keys(rulesOf)) {
			apps = append(apps, private{"secrets-" + place + "-" + kind, place, []string{kind}})
		}
	}
	return append(apps, private{"secrets-truncated", inGateway, []string{address}})
}

// privacyArguments writes a rules file for the gateways and one for the enrichers, and
// returns the services' arguments.
func privacyArguments(dir string, apps []private) (map[string][]string, error) {
	arguments := map[string][]string{}
	for service, place := range map[string]string{stack.Gateway: inGateway, stack.Enricher: inEnricher} {
		var text strings.Builder
		text.WriteString("hash_keys: [{id: k1, secret: 0123456789abcdef}]\napps:\n")
		for _, app := range apps {
			if app.place != place && app.place != inBoth {
				fmt.Fprintf(&text, "  %s: none\n", app.id)
				continue
			}
			fmt.Fprintf(&text, "  %s:\n", app.id)
			var rules []string
			for _, kind := range app.kinds {
				switch line := rulesOf[kind]; {
				case app.id == "secrets-truncated":
					fmt.Fprintf(&text, "    ip: truncated\n")
				case strings.HasPrefix(line, "- "):
					rules = append(rules, strings.Split(line, "\n")...)
				default:
					fmt.Fprintf(&text, "    %s\n", line)
				}
			}
			if len(rules) > 0 {
				// What is removed whole comes before what is looked into.
				slices.SortStableFunc(rules, func(a, b string) int {
					return strings.Count(a, "detect") - strings.Count(b, "detect")
				})
				fmt.Fprintf(&text, "    rules:\n      %s\n", strings.Join(rules, "\n      "))
			}
		}
		text.WriteString("...\n")
		path := filepath.Join(dir, "privacy-"+place+".yaml")
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			return nil, err
		}
		arguments[service] = []string{"-privacy-file", path}
	}
	arguments[stack.Gateway] = append(arguments[stack.Gateway], "-trusted-proxies", "127.0.0.1")
	return arguments, nil
}

// search plants secrets, finds them, and keeps account of both.
type search struct {
	t     *testing.T
	stack *stack.Stack
	apps  map[string]*private
	all   map[string]planted         // by secret
	found map[string]map[string]bool // places by secret
	n     int
}

// markers begin the secrets: each is followed by a number.
var markers = []struct {
	text   string
	length int // of the whole
}{{"zk", 9}, {"a1b2:c3d4:", 19}, {"4000", 16}, {"+4366", 13}}

// secret returns a text of a kind as a client would send it, and the part of it that must
// be found nowhere.
func (s *search) secret(kind string) (text, secret string) {
	s.n++
	secret = fmt.Sprintf("zk%06dq", s.n)
	switch kind {
	case address:
		secret = fmt.Sprintf("a1b2:c3d4:1%03d:1%03d", s.n/1000, s.n%1000)
		return "2001:db8:77:5eed:" + secret, secret
	case userAgent:
		return "Till/7 " + secret, secret
	case anEmail:
		return secret + "@private.example", secret
	case aPhone:
		secret = fmt.Sprintf("+4366%08d", s.n)
		return secret, secret
	case aToken:
		return "token=" + secret, secret
	case aCard:
		digits := fmt.Sprintf("4000%011d", s.n)
		sum := 0
		for i := range digits { // the last digit before the check digit counts twice
			d := int(digits[len(digits)-1-i] - '0')
			if i%2 == 0 {
				if d *= 2; d > 9 {
					d -= 9
				}
			}
			sum += d
		}
		secret = digits + strconv.Itoa((10-sum%10)%10)
		return secret, secret
	}
	return secret, secret
}

var placeholders = regexp.MustCompile(`<[A-Za-z]+>`)

// Groups of keys: every kind that rules name by path or detect, and all names of addresses
// and user agents.
var groups = map[string]string{
	"all": `"card_holder":"<drop>","pin":"<hash>","message":"<mask>","pan":"<card>","note":"mail <email>, call <phone>, see https://shop.example/?<token>&q=<kept>",` +
		`"deep":[{"to":["<email>"],"call":"<phone>"}],"within":{"card_holder":"<drop>","pin":"<hash>"},"plain":"<kept>"`,
	"addresses": `"$ip":"<ip>","ip":"<ip>","ip_address":"<ip>","clientIp":"<ip>","x-forwarded-for":"<ip>, 10.0.0.1","forwarded":"for=<ip>","http":{"X-Real-IP":"<ip>","remoteHost":"<ip>","DO-Connecting-IP":"<ip>"}`,
	"agents":    `"$raw_user_agent":"<agent>","user_agent":"<agent>","browser":{"userAgent":"<agent>","Sec-CH-UA":"<agent>"},"http.request.header.user-agent":["<agent>"]`,
}

// expand replaces <kind> by secrets, <app>, <key>, <id> and <now> by what they say.
func (s *search) expand(text, request string, app *private, rejected bool) string {
	for name, group := range groups {
		text = strings.ReplaceAll(text, "<"+name+">", group)
	}
	return placeholders.ReplaceAllStringFunc(text, func(p string) string {
		switch kind := p[1 : len(p)-1]; kind {
		case "key":
			return stack.WriteKeyOf(app.id)
		case "now":
			return time.Now().UTC().Format(time.RFC3339)
		case "id":
			s.n++
			return fmt.Sprintf("id-%d", s.n)
		case "mailinurl":
			text, secret := s.secret(anEmail)
			s.all[secret] = planted{app.id, anEmail, request, rejected}
			return strings.ReplaceAll(text, "@", "%40")
		default:
			text, secret := s.secret(kind)
			s.all[secret] = planted{app.id, kind, request, rejected}
			return text
		}
	})
}

// request is one way of each protocol to say something.
type request struct {
	protocol, method, path string
	header                 []string // name, value
	body                   string
	rejected               bool // the gateway answers, and sets the event aside
}

// requests are the protocols' events in all their forms, with secrets in each place that
// they have.
func requests() []request {
	const (
		object = `{<all>,<addresses>,<agents>}`
		rest   = `<all>,<addresses>,<agents>`
	)
	otlp := func(pairs ...string) string {
		var list []string
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, fmt.Sprintf(`{"key":"%s","value":{"stringValue":"%s"}}`, pairs[i], pairs[i+1]))
		}
		return strings.Join(list, ",")
	}
	attributes := otlp("card_holder", "<drop>", "pin", "<hash>", "message", "<mask>", "pan", "<card>", "note", "<email> <phone> <token>", "plain", "<kept>",
		"client.address", "<ip>", "network.peer.address", "<ip>", "http.request.header.x-forwarded-for", "<ip>",
		"user_agent.original", "<agent>", "http.user_agent", "<agent>", "http.request.header.user-agent", "<agent>")
	list := []request{
		{"segment", "POST", "/v1/batch", nil, `{"context":{"shared":"<kept>","userAgent":"<agent>"},"batch":[
			{"type":"track","event":"Paid","userId":"u1","messageId":"<id>","properties":` + object + `,"context":{"userAgent":"<agent>","page":{"url":"https://shop.example/?<token>&utm_campaign=<mailinurl>","referrer":"https://<kept>.example/?<token>","title":"<email>"},"campaign":{"source":"<email>","medium":"<kept>"},` + rest + `}},
			{"type":"identify","userId":"u1","anonymousId":"a1","messageId":"<id>","traits":` + object + `},
			{"type":"group","userId":"u1","groupId":"g1","messageId":"<id>","traits":{"role":"<kept>",` + rest + `}},
			{"type":"page","userId":"u1","name":"Home","messageId":"<id>","properties":{"url":"https://shop.example/?<token>","referrer":"https://shop.example/?mail=<email>","plain":"<kept>"}},
			{"type":"screen","userId":"u1","name":"Home","messageId":"<id>","properties":` + object + `},
			{"type":"metric","event":"Seats","groupId":"g1","messageId":"<id>","properties":{"value":3,` + rest + `}},
			{"type":"alias","userId":"u1","previousId":"u0","messageId":"<id>","context":` + object + `}]}`, false},
		{"segment", "GET", "/pixel/v1/track?writeKey=<key>&event=Paid&userId=u1&messageId=<id>&properties.card_holder=<drop>&properties.note=<email>&properties.plain=<kept>&context.page.url=<token>&context.ip=<ip>", nil, "", false},
		{"segment", "POST", "/v1/batch", nil, `{"batch":[
			{"type":"track","event":"Paid","userId":"gone-user","messageId":"<id>","properties":{"x":"<gone>"}},
			{"type":"track","event":"Paid","anonymousId":"gone-device","messageId":"<id>","traits":{"x":"<gone>"}},
			{"type":"track","event":"Paid","userId":"u1","messageId":"<id>","context":{"groupId":"gone-account","x":"<gone>"}},
			{"type":"alias","userId":"u1","previousId":"gone-user","messageId":"<id>","context":{"x":"<gone>"}}]}`, false},
		{"segment", "POST", "/v1/batch", nil, `{"batch":[
			{"type":"track","userId":"u1","messageId":"<id>","properties":` + object + `,"context":{` + rest + `}},
			{"type":"jump","event":"e","userId":"u1","messageId":"<id>","traits":` + object + `},
			{"type":"track","event":"e","userId":"u1","userId":"u2","messageId":"<id>","properties":` + object + `},
			{"type":"track","event":"e","userId":"u1","messageId":"<id>","context":{"quantity":"<email>",` + rest + `}},
			{"type":"track","userId":"gone-user","messageId":"<id>","properties":{"x":"<gone>"}},
			"<unreadable>"]}`, true},
		{"rudderstack", "POST", "/v1/batch", nil, `{"batch":[
			{"type":"identify","userId":"u2","anonymousId":"a2","messageId":"<id>","originalTimestamp":"<now>","context":{"traits":` + object + `,"ip":"<ip>","userAgent":"<agent>","userAgentData":{"brands":["<agent>"]}}},
			{"type":"track","event":"Paid","userId":"u2","messageId":"<id>","originalTimestamp":"<now>","context":{"traits":` + object + `,` + rest + `},"properties":` + object + `}]}`, false},
		{"posthog", "POST", "/posthog/batch/", nil, `{"api_key":"<key>","batch":[
			{"event":"Paid","distinct_id":"u3","uuid":"0197c2f0-0000-7000-8000-00000000<seq>01","timestamp":"<now>","properties":{"$set":` + object + `,"$set_once":` + object + `,"$current_url":"https://shop.example/?<token>","$useragent":"<agent>",` + rest + `}},
			{"event":"$identify","distinct_id":"u3","uuid":"0197c2f0-0000-7000-8000-00000000<seq>02","properties":{"$anon_distinct_id":"a3","$set":` + object + `}},
			{"event":"$groupidentify","distinct_id":"u3","uuid":"0197c2f0-0000-7000-8000-00000000<seq>03","properties":{"$group_type":"company","$group_key":"g3","$group_set":` + object + `}},
			{"event":"$pageview","distinct_id":"u3","uuid":"0197c2f0-0000-7000-8000-00000000<seq>04","properties":` + object + `}]}`, false},
		{"posthog", "POST", "/posthog/batch/", nil, `{"api_key":"<key>","batch":[
			{"event":{"a":"<kept>"},"distinct_id":"u3","uuid":"<id>","properties":{"$set":` + object + `,` + rest + `}}]}`, true},
		{"amplitude", "POST", "/amplitude/2/httpapi", nil, `{"api_key":"<key>","events":[
			{"event_type":"Paid","user_id":"user-4","device_id":"device-4","insert_id":"<id>","event_properties":` + object + `,"user_properties":` + object + `,"groups":{"company":"g4"},` + rest + `},
			{"event_type":"$identify","user_id":"user-4","insert_id":"<id>","user_properties":{"$set":` + object + `,"$append":` + object + `}},
			{"event_type":"$groupidentify","insert_id":"<id>","groups":{"company":"g4"},"group_properties":{"$set":` + object + `}}]}`, false},
		{"amplitude", "POST", "/amplitude/2/httpapi", nil, `{"api_key":"<key>","events":[
			{"event_type":{"a":"<kept>"},"user_id":"user-4","insert_id":"<id>","event_properties":` + object + `,"user_properties":` + object + `,"ip":"<ip>","user_agent":"<agent>"}]}`, true},
		{"mixpanel", "POST", "/mixpanel/track?ip=1", nil, `[
			{"event":"Paid","properties":{"token":"<key>","distinct_id":"u5","$insert_id":"<id>","$device_id":"a5",` + rest + `}},
			{"event":"$mp_web_page_view","properties":{"token":"<key>","distinct_id":"u5","$insert_id":"<id>","$current_url":"https://shop.example/?<token>","$referrer":"https://shop.example/?mail=<email>","plain":"<kept>"}}]`, false},
		{"mixpanel", "POST", "/mixpanel/engage", nil, `[
			{"$token":"<key>","$distinct_id":"u5","$ip":"<ip>","$set":` + object + `},{"$token":"<key>","$distinct_id":"u5","$append":` + object + `}]`, false},
		{"mixpanel", "POST", "/mixpanel/groups", nil, `[{"$token":"<key>","$group_key":"company","$group_id":"g5","$set":` + object + `}]`, false},
		{"mixpanel", "POST", "/mixpanel/track", nil, `[{"properties":{"token":"<key>",` + rest + `}}]`, true},
		{"moesif", "POST", "/v1/events", []string{"X-Moesif-Application-Id", "<key>"}, `{"request":{"time":"<now>","uri":"https://api.example/x?<token>&q=<kept>","verb":"GET","ip_address":"<ip>","user_agent_string":"<agent>",
			"headers":{"User-Agent":"<agent>","X-Real-IP":"<ip>","X-Forwarded-For":"<ip>","Authorization":"Bearer <never>","Cookie":"session=<never>","X-Api-Key":"<never>",` + rest + `},"body":` + object + `},
			"response":{"time":"<now>","status":200,"ip_address":"<ip>","headers":{"Set-Cookie":"session=<never>",` + rest + `},"body":` + object + `},"user_id":"u6","company_id":"g6","transaction_id":"<id>","metadata":` + object + `}`, false},
		{"moesif", "POST", "/v1/actions/batch", []string{"X-Moesif-Application-Id", "<key>"}, `[
			{"action_name":"Paid","user_id":"u6","transaction_id":"<id>","request":{"time":"<now>","uri":"https://shop.example/?<token>","ip_address":"<ip>","user_agent_string":"<agent>"},"metadata":` + object + `}]`, false},
		{"moesif", "POST", "/v1/users", []string{"X-Moesif-Application-Id", "<key>"}, `{"user_id":"u6","company_id":"g6","ip_address":"<ip>","user_agent_string":"<agent>","metadata":` + object + `}`, false},
		{"moesif", "POST", "/v1/companies", []string{"X-Moesif-Application-Id", "<key>", "User-Agent", "moesif-nodejs/3.1 <agent>"}, `{"company_id":"g6","company_domain":"shop.example","ip_address":"<ip>","metadata":` + object + `}`, false},
		{"moesif", "POST", "/v1/subscriptions", []string{"X-Moesif-Application-Id", "<key>"}, `{"company_id":"g6","subscription_id":"s6","metadata":` + object + `}`, false},
		{"moesif", "POST", "/v1/actions", []string{"X-Moesif-Application-Id", "<key>"}, `{"action_name":{"a":"<kept>"},"user_id":"u6","transaction_id":"<id>","request":{"uri":"https://shop.example/?<token>","headers":{"Cookie":"session=<never>","User-Agent":"<agent>"}},"metadata":` + object + `}`, true},
		{"gainsightpx", "POST", "/v1/events/custom", []string{"X-APTRINSIC-API-KEY", "<key>"}, `{"eventName":"Paid","eventId":"<id>","identifyId":"u7","userType":"USER","accountId":"g7","remoteHost":"<ip>","url":"https://shop.example/?<token>","referrer":"https://shop.example/?mail=<email>","attributes":` + object + `,` + rest + `}`, false},
		{"gainsightpx", "POST", "/v1/users", []string{"X-APTRINSIC-API-KEY", "<key>"}, `{"identifyId":"<id>","accountId":"g7","customAttributes":` + object + `,"lastVisitedUserAgentData":[{"agent":"<agent>"}],"ip":"<ip>"}`, false},
		{"gainsightpx", "POST", "/v1/accounts", []string{"X-APTRINSIC-API-KEY", "<key>"}, `{"id":"<id>","name":"Seven","customAttributes":` + object + `}`, false},
		{"gainsightpx", "PUT", "/v1/users/never-created", []string{"X-APTRINSIC-API-KEY", "<key>"}, `{"firstName":"<kept>","customAttributes":` + object + `}`, true},
		{"csb", "POST", "/api/v1_1/feature", []string{"Idempotency-Key", "<id>"}, `{"account_id":"g8","user_id":"u8","feature_id":"paid","total":1,` + rest + `}`, false},
		{"csb", "POST", "/api/v1_1/login", nil, `{"account_id":"g8","user_id":"u8",` + rest + `}`, false},
		{"csb", "POST", "/api/v1_1/user", nil, `{"account_id":"g8","user_id":"u8",` + rest + `}`, false},
		{"csb", "POST", "/api/v1_1/account", nil, `{"account_id":"g8",` + rest + `}`, false},
		{"csb", "POST", "/api/v1_1/subscription", nil, `{"account_id":"g8","subscription_id":"s8",` + rest + `}`, false},
		{"csb", "POST", "/api/v1_1/feature", nil, `{"account_id":"g8","user_id":"u8","feature_id":"paid","total":1.5,` + rest + `}`, true},
		{"cloudevents", "POST", "/cloudevents", []string{"Content-Type", "application/cloudevents+json"}, `{"specversion":"1.0","id":"<id>","source":"/till","type":"Paid","subject":"g9","userid":"u9","clientip":"<ip>","useragent":"<agent>","data":` + object + `}`, false},
		{"cloudevents", "POST", "/cloudevents", []string{"Ce-Specversion", "1.0", "Ce-Id", "<id>", "Ce-Source", "/till", "Ce-Type", "Paid", "Ce-Subject", "g9", "Ce-Message", "<mask>", "Ce-Note", "<email>", "Ce-Clientip", "<ip>", "Ce-Useragent", "<agent>", "Content-Type", "application/json"}, object, false},
		{"cloudevents", "POST", "/cloudevents", []string{"Content-Type", "application/cloudevents+json"}, `{"specversion":"0.1","id":"<id>","source":"/till","type":"Paid","subject":"g9","data":` + object + `}`, true},
		{"otlp", "POST", "/otlp/v1/logs", []string{"Content-Type", "application/json"}, `{"resourceLogs":[{"resource":{"attributes":[` + attributes + `]},"scopeLogs":[{"scope":{"name":"till","attributes":[` + attributes + `]},"logRecords":[
			{"eventName":"Paid","body":{"stringValue":"<email> <phone>"},"attributes":[` + otlp("user.id", "u10", "log.record.uid", "<id>", "session.id", "<kept>") + `,` + attributes + `,
			{"key":"deep","value":{"kvlistValue":{"values":[` + attributes + `]}}},{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"<email>"}]}}}]}]}]}]}`, false},
		{"otlp", "POST", "/otlp/v1/logs", []string{"Content-Type", "application/json"}, `{"resourceLogs":[{"resource":{"attributes":[` + otlp("x", "<unreadable>") + `]},"scopeLogs":[{"logRecords":[{"eventName":"of nobody","attributes":[` + attributes + `]}]}]}]}`, true},
	}
	return list
}

// send sends a request for an app. Whatever the protocol, its header has secrets too.
func (s *search) send(ctx context.Context, app *private, r *request) {
	s.t.Helper()
	name, _, _ := strings.Cut(r.protocol+" "+r.path, "?")
	s.n++
	expand := func(text string) string {
		return s.expand(strings.ReplaceAll(text, "<seq>", fmt.Sprintf("%02d", len(s.all)%100)), name, app, r.rejected)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, s.stack.URLs()[0]+expand(r.path), strings.NewReader(expand(r.body)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth(stack.WriteKeyOf(app.id), expand("<never>"))
	req.Header.Set("Cookie", "session="+expand("<never>"))
	req.Header.Set("User-Agent", "Till/7")
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Set(r.header[i], expand(r.header[i+1]))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if !r.rejected && (res.StatusCode > 299 || bytes.Contains(answer, []byte("ejected"))) || res.StatusCode >= 500 || res.StatusCode == http.StatusUnauthorized {
		s.t.Errorf("%s for %s: got %d %s", name, app.id, res.StatusCode, answer)
	}
}

// seen notes where a text has secrets, as they are or in base64.
func (s *search) seen(where string, texts ...[]byte) {
	for _, text := range texts {
		s.plain(where, text)
		for len(text) > 0 {
			run := 0
			for run < len(text) && isBase64[text[run]] {
				run++
			}
			if run >= 16 {
				s.encoded(where, text[:run])
			}
			text = text[min(run+1, len(text)):]
		}
	}
}

func (s *search) plain(where string, text []byte) {
	for _, m := range markers {
		for at := 0; ; at++ {
			i := bytes.Index(text[at:], []byte(m.text))
			if i < 0 {
				break
			}
			at += i
			if secret := string(text[at:min(at+m.length, len(text))]); s.all[secret].app != "" {
				if s.found[secret] == nil {
					s.found[secret] = map[string]bool{}
				}
				s.found[secret][where] = true
			}
		}
	}
}

var isBase64 = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_" {
		is[c] = true
	}
	return is
}()

// encoded looks into a text that may be base64, wherever its first group begins.
func (s *search) encoded(where string, run []byte) {
	run = bytes.ReplaceAll(bytes.ReplaceAll(run, []byte("-"), []byte("+")), []byte("_"), []byte("/"))
	for skip := range 4 {
		part := run[skip : len(run)-(len(run)-skip)%4]
		plain := make([]byte, base64.StdEncoding.DecodedLen(len(part)))
		if n, err := base64.StdEncoding.Decode(plain, part); err == nil {
			s.plain(where, plain[:n])
		}
	}
}

// look reads every record of every topic, aborted ones too, every row of every table of both
// databases, and what the services left on disk.
func (s *search) look(ctx context.Context, log kafka.Log, views bool) {
	s.t.Helper()
	s.topics(ctx, log)
	condition := "engine LIKE '%MergeTree'"
	if views {
		condition = "engine != 'MaterializedView' AND empty(parameterized_view_parameters)"
	}
	rows, err := s.stack.Conn.Query(ctx, "SELECT concat(database, '.', name) FROM system.tables WHERE database IN (?, ?) AND "+condition+" ORDER BY 1", stack.Database, stack.Internal)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			s.t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if len(tables) < 15 {
		s.t.Fatalf("only the tables %v", tables)
	}
	for _, name := range tables {
		s.table(ctx, name)
	}
	err = filepath.WalkDir(s.stack.Dir(), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist): // what a service replaces
			return err
		case err != nil || !d.Type().IsRegular():
			if d != nil && d.IsDir() && d.Name() == "clickhouse" {
				return filepath.SkipDir
			}
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			s.plain("file "+d.Name(), text)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *search) table(ctx context.Context, name string) {
	s.t.Helper()
	rows, err := s.stack.Conn.Query(ctx, "SELECT toString(tuple(x.*)) FROM "+name+" AS x")
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
		s.seen("table "+name, []byte(row))
	}
	if err := rows.Err(); err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
}

func (s *search) topics(ctx context.Context, log kafka.Log) {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.KeepControlRecords())
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	type partition struct {
		topic  string
		number int32
	}
	left, from := map[partition]int64{}, map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset == 0 {
			return
		}
		if from[o.Topic] == nil {
			from[o.Topic] = map[int32]kgo.Offset{}
		}
		from[o.Topic][o.Partition], left[partition{o.Topic, o.Partition}] = kgo.NewOffset().AtStart(), o.Offset
	})
	cl.AddConsumePartitions(from)
	for len(left) > 0 {
		got := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("not read up to their ends: %v", left)
		}
		got.EachRecord(func(r *kgo.Record) {
			if p := (partition{r.Topic, r.Partition}); r.Offset+1 >= left[p] {
				delete(left, p)
			}
			s.seen("topic "+r.Topic, r.Key, r.Value)
			for _, h := range r.Headers {
				s.seen("topic "+r.Topic, []byte(h.Key), h.Value)
			}
		})
	}
}

// judge holds what was found against the rules. Rules that are in the enricher only leave
// what they remove in raw, and in what a service rejected; nothing else has it. What no
// rule names is found, or the search could not find anything.
func (s *search) judge() {
	s.t.Helper()
	type sum struct{ removed, kept int }
	sums := map[string]*sum{}
	faults := map[string]int{}
	for secret, p := range s.all {
		app := s.apps[p.app]
		if sums[p.app] == nil {
			sums[p.app] = &sum{}
		}
		where := slices.Sorted(maps.Keys(s.found[secret]))
		if !app.removes(p.kind) {
			sums[p.app].kept++
			table := func(place string) bool { return strings.HasPrefix(place, "table ") }
			if !slices.ContainsFunc(where, table) {
				faults[fmt.Sprintf("%s: %s of %s (rejected: %t) is in no table, only in %q", p.app, p.kind, p.request, p.rejected, where)]++
			}
			continue
		}
		sums[p.app].removed++
		for _, place := range where {
			if app.place == inEnricher && p.kind != credentials &&
				(place == "topic "+topic.Unprefixed.Raw || place == "topic "+topic.Unprefixed.Rejected || place == "table "+stack.Database+".rejected_events") {
				continue
			}
			faults[fmt.Sprintf("%s: %s of %s (rejected: %t) is in %s", p.app, p.kind, p.request, p.rejected, place)]++
		}
	}
	if !s.anywhere("topic " + topic.Unprefixed.Verdicts) {
		s.t.Error("no verdict has any secret that is kept: verdicts were not searched")
	}
	for _, f := range slices.Sorted(maps.Keys(faults)) {
		s.t.Errorf("%d times: %s", faults[f], f)
	}
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		s.t.Logf("%s: %d secrets that rules remove, %d that they keep", id, sums[id].removed, sums[id].kept)
	}
}

// anywhere reports whether any secret was found in a place.
func (s *search) anywhere(place string) bool {
	for _, where := range s.found {
		if where[place] {
			return true
		}
	}
	return false
}

// TestPlantedSecrets plants secrets in every place that a protocol has, in apps with privacy
// rules in the gateway, in the enricher, in both and nowhere, and searches everything that
// is stored for each of them.
func TestPlantedSecrets(t *testing.T) {
	s, _ := forTest(t)
	plantedAndSearched(t, s, shared.fake, privateApps(), false)
}

// TestPlantedSecretsOfEachRule does so with each rule alone: what is not its kind stays.
func TestPlantedSecretsOfEachRule(t *testing.T) {
	longtest.Only(t)
	log, dir, apps := kafka.FakeForTest(t), t.TempDir(), singleRules()
	arguments, err := privacyArguments(dir, apps)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, app := range apps {
		ids = append(ids, app.id)
	}
	plantedAndSearched(t, stack.ForTest(t, stack.Config{Dir: dir, Log: log, Apps: ids, Args: arguments, KeyLines: []string{"ip: full"}}), log, apps, true)
}

func plantedAndSearched(t *testing.T, st *stack.Stack, log kafka.Log, apps []private, views bool) {
	ctx := within(t, 4*time.Minute)
	s := &search{t: t, stack: st, apps: map[string]*private{}, all: map[string]planted{}, found: map[string]map[string]bool{}}
	for i := range apps {
		app := &apps[i]
		s.apps[app.id] = app
		s.watch(ctx, log, app.id)
		for _, r := range requests() {
			s.send(ctx, app, &r)
		}
		if app.place == nowhere || app.place == inEnricher {
			s.pastTheGateway(ctx, log, app)
		}
	}
	if _, err := conserved(ctx, st); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.look(ctx, log, views)
	t.Logf("%d secrets; searched in %s", len(s.all), time.Since(began).Round(time.Millisecond))
	s.judge()
}

// pastTheGateway writes an event to raw that enrichers reject, as of a gateway of another
// release.
func (s *search) pastTheGateway(ctx context.Context, log kafka.Log, app *private) {
	s.t.Helper()
	object := func() []byte {
		return []byte(s.expand(`{<all>,<addresses>,<agents>}`, "raw record of an unknown kind", app, true))
	}
	s.n++
	e := event.RawEvent{
		AppID: app.id, Kind: "dance", Event: "Paid", MessageID: fmt.Sprint("past-", s.n), UserID: "u11", Quantity: 1, Protocol: "segment",
		ReceivedAt: event.FromTime(time.Now()), Properties: object(), Traits: object(), Context: object(),
	}
	key := topic.RawKey(nil, e.AppID, e.UserID, "", "")
	s.produce(ctx, log, &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, topic.SingleLayout().Partitions), Key: key, Value: event.NewCodec().AppendRaw(nil, &e)})
}

func (s *search) produce(ctx context.Context, log kafka.Log, r *kgo.Record) {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// watch has the enrichers write verdicts on an app's events, as while somebody looks at
// the live view.
func (s *search) watch(ctx context.Context, log kafka.Log, app string) {
	s.t.Helper()
	s.produce(ctx, log, &kgo.Record{Topic: topic.Unprefixed.VerdictRequests, Value: verdict.Request{App: app}.Value()})
}
