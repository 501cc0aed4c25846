// Package metadata converts the free-form objects of events for typed columns.
//
// It owns the rules for keys, types and limits, the registry of the types of an app's
// keys, and the agreement of all instances on the type of a new key. docs/metadata.md
// has the rules for people who send events or query them.
//
// A ClickHouse JSON column accepts everything that a Normalizer outputs: a single value
// that it refused would block the partition forever. Other values are kept under
// conflicts with the original value: nothing is dropped, rounded, or set to zero.
//
// A Normalizer is for one goroutine. A Registry is safe for concurrent use, and the
// Views it returns are immutable.
package metadata

import (
	"errors"
	"fmt"
)

// Type is the type of a key.
type Type uint8

// Types of keys. None is the type of a key that has not been seen yet.
const (
	None Type = iota
	Bool
	Integer // fits 64 bits with sign
	Float
	String
	Object
	Array
	numTypes
)

var typeNames = [numTypes]string{"none", "bool", "integer", "float", "string", "object", "array"}

func (t Type) String() string {
	if t < numTypes {
		return typeNames[t]
	}
	return "invalid"
}

// ParseType returns the type of that name; None is not one.
func ParseType(name string) (Type, error) {
	for t := Bool; t < numTypes; t++ {
		if typeNames[t] == name {
			return t, nil
		}
	}
	return None, fmt.Errorf("type must be bool, integer, float, string, object or array (got %q)", name)
}

// Objects of an event that are normalized: the first part of a key path.
const (
	Properties = "properties"
	Traits     = "traits"
)

// elements is the part of a key path that stands for the elements of an array.
const elements = "[]"

// Limits bound the properties of one event. Anything above them goes to conflicts.
type Limits struct {
	Keys       int // keys of one object of the event, including nested ones
	Depth      int // nesting of objects and arrays
	KeyBytes   int
	ValueBytes int // of one string
	AppKeys    int // different key paths of one app
	SourceKeys int // new key paths of one source of an app within an hour, see Source
}

// DefaultLimits are far above what typical events need.
func DefaultLimits() Limits {
	return Limits{Keys: 512, Depth: 8, KeyBytes: 256, ValueBytes: 64 << 10, AppKeys: 4096, SourceKeys: 1024}
}

// Validate reports all faults.
func (l Limits) Validate() error {
	var errs []error
	within := func(name string, got, least, most int) {
		if got < least || got > most {
			errs = append(errs, fmt.Errorf("%s must be %d to %d (got %d)", name, least, most, got))
		}
	}
	within("metadata-keys", l.Keys, 1, 10_000)
	within("metadata-depth", l.Depth, 1, 32)
	within("metadata-key-bytes", l.KeyBytes, 1, 4096)
	within("metadata-value-bytes", l.ValueBytes, 1, 16<<20)
	within("metadata-app-keys", l.AppKeys, 1, 100_000)
	within("metadata-source-keys", l.SourceKeys, 1, 100_000)
	return errors.Join(errs...)
}

// ErrInvalid is in the chain of errors about text that is not a JSON object, or is
// nested deeper than maxNesting. The event must be rejected.
var ErrInvalid = errors.New("not a JSON object")

// maxNesting bounds the nesting that is parsed at all, and thereby the stack.
const maxNesting = 512
