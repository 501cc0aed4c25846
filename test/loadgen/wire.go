package loadgen

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

const (
	libraryName    = "uptake-loadgen"
	libraryVersion = "1"
	instantFormat  = "2006-01-02T15:04:05.000Z"
)

// AppendEvent appends the JSON of one event as the client sends it. For a good
// event the bytes are the same each time.
func (p *Plan) AppendEvent(dst []byte, i int32) []byte {
	e := &p.Events[i]
	start := len(dst)
	dst = append(dst, `{"type":`...)
	dst = appendJSON(dst, e.Kind)
	switch e.Kind {
	case kindTrack:
		dst = appendField(dst, "event", e.Name)
	case kindPage, kindScreen:
		dst = appendField(dst, "name", e.Name)
	case kindGroup:
		dst = appendField(dst, "groupId", e.Account)
	case kindAlias:
		dst = appendField(dst, "previousId", e.Previous)
	}
	dst = appendField(dst, "messageId", e.MessageID)
	if e.User != "" {
		dst = appendField(dst, "userId", e.User)
	}
	if e.Anonymous != "" {
		dst = appendField(dst, "anonymousId", e.Anonymous)
	}
	dst = appendField(dst, "timestamp", e.Time.Format(instantFormat))
	dst = append(dst, `,"context":{"library":{"name":"`+libraryName+`","version":"`+libraryVersion+`"}`...)
	if e.Account != "" {
		dst = appendField(dst, "groupId", e.Account)
	}
	if e.Quantity != 0 {
		dst = append(dst, `,"quantity":`...)
		dst = strconv.AppendInt(dst, e.Quantity, 10)
	}
	dst = append(dst, '}')
	switch e.Kind {
	case kindIdentify, kindGroup:
		dst = append(dst, `,"traits":`...)
		props := e.Props
		if e.Role != "" {
			props = strings.TrimSuffix(props, "}") + `,"role":` + strconv.Quote(e.Role) + "}"
		}
		dst = append(dst, props...)
	case kindAlias:
	default:
		dst = append(dst, `,"properties":`...)
		dst = append(dst, e.Props...)
	}
	dst = append(dst, '}')
	if e.Bad != nil {
		broken := e.Bad.damage(string(dst[start:]))
		dst = append(dst[:start], broken...)
	}
	return dst
}

// AppendBody appends the body of request n, sent at now.
func (p *Plan) AppendBody(dst []byte, n int, now time.Time) []byte {
	r := &p.Requests[n]
	sent := now.UTC().Format(instantFormat)
	if !r.Batch() {
		dst = p.AppendEvent(dst, r.Events[0])
		return append(appendField(dst[:len(dst)-1], "sentAt", sent), '}')
	}
	dst = append(dst, `{"batch":[`...)
	for k, i := range r.Events {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst = p.AppendEvent(dst, i)
	}
	dst = append(dst, ']')
	return append(appendField(dst, "sentAt", sent), '}')
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return appendJSON(dst, value)
}

func appendJSON(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("json of a string: " + err.Error()) // cannot be
	}
	return append(dst, b...)
}
