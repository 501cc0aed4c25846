package erase

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
)

// hasTopic reports whether a topic exists: those of alerts may not.
func (e *eraser) hasTopic(ctx context.Context, name string) (bool, error) {
	list, err := e.admin.ListTopics(ctx, name)
	if err != nil {
		return false, fmt.Errorf("look for topic %s: %w", name, err)
	}
	return list.Has(name), nil
}

// silence records, by hashes, of whom alerts may not say anything any more: what was said
// of them is neither corrected, which would name them again, nor delivered, nor copied to
// ClickHouse another time. It comes before the order to erase, by which their events lose
// their names.
func (e *eraser) silence(ctx context.Context) error {
	if has, err := e.hasTopic(ctx, e.Names.AlertState); err != nil || !has {
		return err
	}
	var records []*kgo.Record
	for user := range e.list.users {
		if !e.silenced[user] {
			key, value := signal.ErasedUser(e.cfg.App, e.key, user)
			records = append(records, &kgo.Record{Topic: e.Names.AlertState, Key: []byte(key), Value: value})
		}
	}
	if err := e.Kafka.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("have alerts say nothing of the person: %w", err)
	}
	if e.silenced == nil {
		e.silenced = map[string]bool{}
	}
	for user := range e.list.users {
		e.silenced[user] = true
	}
	return nil
}

// signalStates returns the newest records of the state of alerts that are about the
// person, by key.
func (e *eraser) signalStates(ctx context.Context) (map[string]*kgo.Record, error) {
	if has, err := e.hasTopic(ctx, e.Names.AlertState); err != nil || !has {
		return nil, err
	}
	of := func(kind string) string { return signal.Key(kind, e.cfg.App) }
	list, err := partitions(e.Kafka).Newest(ctx, e.Names.AlertState, 0, func(key []byte) bool {
		k := string(key)
		return k == of(signal.KeyVersions) || strings.HasPrefix(k, of(signal.KeySubject)+"\x00")
	})
	if err != nil {
		return nil, err
	}
	about, err := aboutUsers(list[of(signal.KeyVersions)])
	if err != nil {
		return nil, fmt.Errorf("definitions in %s: %w", e.Names.AlertState, err)
	}
	for key := range list {
		// kind, app, use, signal, subject; a subject may have any byte.
		parts := strings.SplitN(key, "\x00", 5)
		if len(parts) != 5 || !e.list.users[parts[4]] || !about[parts[2]+"\x00"+parts[3]] {
			delete(list, key)
		}
	}
	return list, nil
}

// aboutUsers returns the signals that are about users by any version of the definitions
// that evaluation has kept, by use and id. Those of other signals are accounts, which may
// have the id of a user.
func aboutUsers(versions *kgo.Record) (map[string]bool, error) {
	about := map[string]bool{}
	if versions == nil {
		return about, nil
	}
	var list []struct {
		Rules []insight.Rule `json:"rules"`
	}
	if err := json.Unmarshal(versions.Value, &list); err != nil {
		return nil, err
	}
	for _, v := range list {
		signals, err := insight.SignalsOf(v.Rules)
		if err != nil {
			return nil, err
		}
		for _, s := range signals.Segments {
			if s.Level == insight.LevelUser {
				about[insight.UseSegment+"\x00"+s.ID] = true
			}
		}
		for _, a := range signals.Alerts {
			if a.Level == insight.LevelUser {
				about[insight.UseAlert+"\x00"+a.ID] = true
			}
		}
	}
	return about, nil
}

// forgetSignals deletes the state of alerts about the person. Evaluators that run do not
// write it again: see silence.
func (e *eraser) forgetSignals(ctx context.Context) error {
	list, err := e.signalStates(ctx)
	if err != nil {
		return err
	}
	var records []*kgo.Record
	for key := range list {
		records = append(records, &kgo.Record{Topic: e.Names.AlertState, Key: []byte(key)})
	}
	slices.SortFunc(records, func(a, b *kgo.Record) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if err := e.Kafka.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("delete the state of alerts about the person: %w", err)
	}
	return nil
}
