package identity

import (
	"fmt"

	"github.com/uptakehq/uptake/schemas/event"
)

// WorkError: a record exceeds a bound of the Config. The work that is counted depends
// on the record and on the state, and never on time.
type WorkError struct {
	Setting string // that has the bound
	Max     int64
}

func (e *WorkError) Error() string {
	return fmt.Sprintf("the record needs more than the %d that %s allows", e.Max, e.Setting)
}

// work is the work of a record so far.
type work struct {
	bytes int64 // of state read, and of outputs
	moves int64
	steps int64 // slots of tables and memberships looked at

	output int64 // bytes of one output
	free   bool  // an operator's order
}

// undo holds what is needed to undo a record's changes in the overlay.
type undo struct {
	ids     []undoID
	known   []undoPair
	counted int // length of Tx.counted before
	unknown int // and of Tx.unknown
}

// undoID is the former content of the overlay for an id.
type undoID struct {
	key   string
	value []byte
	held  bool
}

// undoPair is what the overlay held of a pair.
type undoPair struct {
	pair
	first event.Micros
	held  bool
}

// probes is the number of slots that all tables looked at.
func (tx *Tx) probes() int64 {
	return tx.s.ids.probes + tx.s.known.probes + tx.ids.probes + tx.known.probes
}

// charge adds to the work of the current record. Above a bound it leaves bounded with a
// WorkError, from any call depth.
func (tx *Tx) charge(w work) {
	c := &tx.s.cfg
	if w.output > c.MaxOutputBytes && c.MaxOutputBytes > 0 {
		panic(&WorkError{"output-bytes", c.MaxOutputBytes}) // no topic would accept it
	}
	tx.work.bytes += w.bytes
	tx.work.moves += w.moves
	tx.work.steps += w.steps
	switch {
	case tx.work.free:
	case tx.work.bytes > c.MaxRecordBytes:
		panic(&WorkError{"identity-max-record-bytes", c.MaxRecordBytes})
	case tx.work.moves > c.MaxRecordMoves:
		panic(&WorkError{"identity-max-record-moves", c.MaxRecordMoves})
	case tx.work.steps+tx.probes() > c.MaxRecordSteps:
		panic(&WorkError{"identity-max-record-steps", c.MaxRecordSteps})
	}
}

// bounded learns from the current record. If that exceeds a bound, what was learnt from
// it is undone, and the outputs are emptied.
func (tx *Tx) bounded(learn func()) (err error) {
	clear(tx.undo.ids)
	tx.undo = undo{ids: tx.undo.ids[:0], known: tx.undo.known[:0], counted: len(tx.counted), unknown: len(tx.unknown)}
	tx.work = work{steps: -tx.probes(), free: tx.src.cause.Call == event.CallOperator}
	defer func() {
		tx.work.free = true // nothing is counted outside of a record
		switch r := recover().(type) {
		case nil:
		case *WorkError:
			tx.takeBackRecord()
			err = r
		default:
			panic(r)
		}
	}()
	learn()
	tx.settle()
	return nil
}

func (tx *Tx) takeBackRecord() {
	for i := len(tx.undo.ids) - 1; i >= 0; i-- {
		if u := &tx.undo.ids[i]; u.held {
			tx.ids.set([]byte(u.key), u.value)
		} else {
			tx.ids.remove([]byte(u.key))
		}
	}
	for i := len(tx.undo.known) - 1; i >= 0; i-- {
		if u := &tx.undo.known[i]; u.held {
			tx.known.set(u.pair, u.first)
		} else {
			tx.known.remove(u.pair)
		}
	}
	tx.counted, tx.unknown = tx.counted[:tx.undo.counted], tx.unknown[:tx.undo.unknown]
	clear(tx.orders)
	clear(tx.local)
	tx.orders, tx.local = tx.orders[:0], tx.local[:0]
	tx.out.Reset()
}

// put sets the record of an id in the overlay; an empty record deletes it.
func (tx *Tx) put(key, value []byte) {
	old, held := tx.ids.get(key)
	tx.undo.ids = append(tx.undo.ids, undoID{string(key), old, held})
	tx.ids.set(key, value)
}
