package mapping

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// RetryIDs makes message ids for SDKs that send none and yet send again, byte for
// byte, a request that was not answered: the hash of the request's body and the
// event's place in it, so that the second time gives the same ids.
//
// Bodies are equal by chance where nothing in them tells one call from the next;
// what then truly happened twice would be merged. So it is for events that carry
// the instant of the call, and only for protocols whose SDKs do send again.
type RetryIDs struct {
	body []byte
	hash string // of body, once it was asked for
}

// NewRetryIDs is for the events of one request.
func NewRetryIDs(body []byte) RetryIDs { return RetryIDs{body: body} }

// Next returns the id of the batch's current item.
func (r *RetryIDs) Next(b *ingest.Batch) string {
	if r.hash == "" {
		sum := sha256.Sum256(r.body)
		r.hash = hex.EncodeToString(sum[:16])
	}
	return b.Text("retry-", r.hash, "-", strconv.Itoa(b.Len()-1))
}

// Fine reports whether an instant in ISO 8601 has decimals past the millisecond.
func Fine(instant string) bool {
	_, decimals, _ := strings.Cut(instant, ".")
	n := 0
	for n < len(decimals) && decimals[n]-'0' <= 9 {
		n++
	}
	return n > 3
}
