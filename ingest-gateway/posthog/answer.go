package posthog

import (
	"net/http"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// status chooses the status of the first generation's endpoints. posthog-js takes
// every 4xx, 429 too, for a reason to drop, and retries everything else that is
// not 200 exactly; so overload is 503, and what waiting cannot repair is 4xx.
func status(k ingest.Kind) int {
	if k == ingest.RateLimited || k == ingest.TooSlow {
		return http.StatusServiceUnavailable
	}
	return k.Status()
}

func answer(_ *ingest.Request, _ *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		w.Status, w.ContentType = status(fault.Kind), "text/plain; charset=utf-8"
		w.WriteString(fault.Error())
		return
	}
	w.WriteString(`{"status":1}`)
}

// answerV1 says of each event what became of it; what is ignored is fine too.
func answerV1(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		w.Status = fault.Kind.Status()
		w.WriteString(`{"error":`)
		w.WriteQuoted(fault.Kind.String())
		w.WriteString(`,"error_description":`)
		w.WriteQuoted(fault.Error())
		w.WriteString(`,"error_uri":null}`)
		return
	}
	w.WriteString(`{"results":{`)
	first := true
	for i := range b.Len() {
		v := b.Verdict(i)
		if v.MessageID == "" {
			continue
		}
		if !first {
			w.WriteString(",")
		}
		first = false
		w.WriteQuoted(v.MessageID)
		if v.State != ingest.Rejected {
			w.WriteString(`:{"result":"ok"}`)
			continue
		}
		w.WriteString(`:{"result":"drop","details":`)
		w.WriteQuoted(v.Code + ": " + v.Detail)
		w.WriteString("}")
	}
	w.WriteString("}}")
}
