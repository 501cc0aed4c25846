package ingest

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind is the reason why a request failed as a whole.
type Kind uint8

// Kinds of faults.
const (
	BadKey      Kind = iota + 1 // the write key is missing or unknown
	BadOrigin                   // the app or the key does not allow the page's origin
	BadScope                    // the key may not be used with this protocol
	BadBody                     // cannot be read: packing, syntax, shape
	TooLarge                    // body or batch above a bound
	RateLimited                 // the app sends more per second than it may
	OverQuota                   // the app has used its quota for today
	TooSlow                     // the request did not arrive in time
	Overloaded                  // a bound of the gateway is reached
	Unavailable                 // the brokers did not ack in time
	Stopping                    // the gateway is shutting down
	Broken                      // internal error of the gateway
	numKinds
)

var kindNames = [numKinds]string{"none", "bad_key", "bad_origin", "bad_scope", "bad_body", "too_large", "rate_limited", "over_quota", "too_slow", "overloaded", "unavailable", "stopping", "broken"}

// String is the kind's name in replies, logs and metrics.
func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return "unknown"
}

// Status is the HTTP status that fits the kind for clients without conventions of their
// own.
func (k Kind) Status() int {
	switch k {
	case BadKey:
		return http.StatusUnauthorized
	case BadOrigin, BadScope:
		return http.StatusForbidden
	case BadBody:
		return http.StatusBadRequest
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case RateLimited, OverQuota:
		return http.StatusTooManyRequests
	case TooSlow:
		return http.StatusRequestTimeout
	case Overloaded, Unavailable, Stopping:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Retryable reports whether the same request may succeed later. Nothing of it was
// acked.
func (k Kind) Retryable() bool { return k >= RateLimited }

// Fault is the reason why a request failed as a whole. It is an error; Decode returns
// it.
type Fault struct {
	Kind    Kind
	Setting string // the setting whose bound was reached, if any
	Detail  string // for people

	// RetryAfter is in seconds; 0 where a retry cannot succeed.
	RetryAfter int
}

// Error returns the text for the client.
func (f *Fault) Error() string {
	switch {
	case f.Setting != "" && f.Detail != "":
		return f.Kind.String() + ": " + f.Detail + " (" + f.Setting + ")"
	case f.Setting != "":
		return f.Kind.String() + " (" + f.Setting + ")"
	case f.Detail != "":
		return f.Kind.String() + ": " + f.Detail
	}
	return f.Kind.String()
}

// Unreadable returns the fault of a body that cannot be parsed.
func Unreadable(format string, args ...any) error {
	return &Fault{Kind: BadBody, Detail: fmt.Sprintf(format, args...)}
}

// Exceeds returns the fault of a request above the bound of a setting.
func Exceeds(setting string, what string, bound int) error {
	return &Fault{Kind: TooLarge, Setting: setting, Detail: fmt.Sprintf("%s, bound %d", what, bound)}
}

// AsFault returns the fault in err's chain, or a BadBody fault of err: errors of Decode
// are about the body unless they are Faults.
func AsFault(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Kind: BadBody, Detail: err.Error()}
}

// Names of the settings that bound requests, as used in faults and metrics.
const (
	SettingMaxCompressedBytes = "max-compressed-bytes"
	SettingMaxBodyBytes       = "max-body-bytes"
	SettingMaxImportBytes     = "max-import-bytes"
	SettingMaxBatchEvents     = "max-batch-events"
	SettingMaxEventBytes      = "max-event-bytes"
	SettingMaxIDBytes         = "max-id-bytes"
	SettingMaxNameBytes       = "max-name-bytes"
	SettingMaxDepth           = "max-depth"
	SettingMaxQuantity        = "max-quantity"
)

// Limits bound a request and its events.
type Limits struct {
	MaxCompressedBytes int   // of a packed body, before unpacking
	MaxBodyBytes       int   // of a body, after unpacking
	MaxImportBytes     int   // of a body of a route for imports, packed or not
	MaxBatchEvents     int   // items of one request
	MaxEventBytes      int   // JSON text of one item
	MaxIDBytes         int   // of each id
	MaxNameBytes       int   // of the event name
	MaxDepth           int   // nesting of one item's JSON
	MaxQuantity        int64 // of one event
}

// DefaultLimits are the defaults of the settings.
func DefaultLimits() Limits {
	return Limits{
		MaxCompressedBytes: 1 << 20,
		MaxBodyBytes:       8 << 20,
		MaxImportBytes:     16 << 20,
		MaxBatchEvents:     5000,
		MaxEventBytes:      512 << 10,
		MaxIDBytes:         800, // 200 characters, at which PostHog truncates ids
		MaxNameBytes:       512,
		MaxDepth:           32,
		MaxQuantity:        1_000_000_000,
	}
}

// Validate reports all faults.
func (l Limits) Validate() error {
	var errs []error
	for _, c := range []struct {
		name        string
		got, lo, hi int64
	}{
		{SettingMaxCompressedBytes, int64(l.MaxCompressedBytes), 1, 64 << 20},
		{SettingMaxBodyBytes, int64(l.MaxBodyBytes), 1, 64 << 20},
		{SettingMaxImportBytes, int64(l.MaxImportBytes), 1, 64 << 20},
		{SettingMaxBatchEvents, int64(l.MaxBatchEvents), 1, 100_000},
		{SettingMaxEventBytes, int64(l.MaxEventBytes), 1024, 4 << 20},
		{SettingMaxIDBytes, int64(l.MaxIDBytes), 36, 4096},
		{SettingMaxNameBytes, int64(l.MaxNameBytes), 1, 4096},
		{SettingMaxDepth, int64(l.MaxDepth), 4, 512},
		{SettingMaxQuantity, l.MaxQuantity, 1, 1 << 53},
	} {
		if c.got < c.lo || c.got > c.hi {
			errs = append(errs, fmt.Errorf("%s must be %d to %d (got %d)", c.name, c.lo, c.hi, c.got))
		}
	}
	return errors.Join(errs...)
}

// Bodies are the bounds on the body of one request.
type Bodies struct {
	Packed, Text               int // bytes before and after unpacking
	packedSetting, textSetting string
}

// Bodies returns the bounds on a body, of a route for imports or of any other.
func (l Limits) Bodies(imports bool) Bodies {
	if imports {
		most := max(l.MaxImportBytes, l.MaxBodyBytes)
		return Bodies{Packed: most, Text: most, packedSetting: SettingMaxImportBytes, textSetting: SettingMaxImportBytes}
	}
	return Bodies{Packed: l.MaxCompressedBytes, Text: l.MaxBodyBytes, packedSetting: SettingMaxCompressedBytes, textSetting: SettingMaxBodyBytes}
}

// Most is the largest body on the wire, packed or not, in bytes.
func (b Bodies) Most() int { return max(b.Packed, b.Text) }

// TooLarge returns the fault of a body above a bound; what describes the body.
func (b Bodies) TooLarge(what string) *Fault { return AsFault(Exceeds(b.textSetting, what, b.Text)) }

// TooLargePacked returns the same for a packed body, before unpacking.
func (b Bodies) TooLargePacked(what string) *Fault {
	return AsFault(Exceeds(b.packedSetting, what, b.Packed))
}
