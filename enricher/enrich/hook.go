package enrich

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// beforeEndHook puts a failpoint between the commit of the offsets and the end
// of the transaction, which the library does in one call. Only builds with
// failpoints use it.
type beforeEndHook struct{}

// OnBrokerRead implements kgo.HookBrokerRead.
func (beforeEndHook) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.TxnOffsetCommit) {
		failpoint.Reach("enricher.before-end")
	}
}
