package note

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Look says that somebody opened a page about a person, or the people of an account. It is
// a record of topic.Looks, which is kept for 90 days: in a compacted topic the id of a
// person would outlive its erasure.
type Look struct {
	App     string    `json:"app"`
	At      time.Time `json:"at"`
	Viewer  string    `json:"viewer"`
	Person  string    `json:"person,omitempty"`  // id of a user or visitor; empty: the people of Account
	Account string    `json:"account,omitempty"` // empty: Person's page
}

// DecodeLook reads a record value. It returns an error if the value is no JSON, or names
// no app or viewer.
func DecodeLook(value []byte) (l Look, err error) {
	if err := json.Unmarshal(value, &l); err != nil {
		return l, err
	}
	if l.App == "" || l.Viewer == "" {
		return l, errors.New("a look must name app and viewer")
	}
	return l, nil
}

// Look writes a record without waiting for it. failed is called, from another goroutine,
// if it cannot be written, also because 10,000 records wait.
func (l *Log) Look(look Look, failed func(error)) {
	value, err := json.Marshal(look)
	if err != nil { // a year that RFC 3339 cannot say
		failed(err)
		return
	}
	l.cl.TryProduce(l.ctx, &kgo.Record{Topic: l.names.Looks, Value: value, Timestamp: look.At}, func(_ *kgo.Record, err error) {
		if err != nil {
			failed(err)
		}
	})
}
