package amplitude

import (
	"net/http"
	"strconv"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// status chooses the status. The SDKs go by the code in the body, which is the
// same. 401 and 403 are retried, 400 with the words that invalidKey starts with
// is not.
func status(k ingest.Kind) int {
	switch k {
	case ingest.BadKey, ingest.BadOrigin, ingest.BadScope, ingest.BadBody:
		return http.StatusBadRequest
	}
	return k.Status()
}

// invalidKey is how the SDKs know that a request can never succeed.
const invalidKey = "Invalid API key: "

func answer(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		w.Status = status(fault.Kind)
		writeFault(b, fault, w)
		return
	}
	w.WriteString(`{"code":200,"events_ingested":`)
	w.Body = strconv.AppendInt(w.Body, int64(b.Len()), 10)
	w.WriteString(`,"payload_size_bytes":`)
	w.Body = strconv.AppendInt(w.Body, int64(len(r.Body)), 10)
	w.WriteString(`,"server_upload_time":`)
	w.Body = strconv.AppendInt(w.Body, r.ReceivedAt/1000, 10)
	w.WriteString("}")
}

func writeFault(b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	w.WriteString(`{"code":`)
	w.Body = strconv.AppendInt(w.Body, int64(w.Status), 10)
	w.WriteString(`,"error":`)
	switch fault.Kind {
	case ingest.BadKey, ingest.BadOrigin, ingest.BadScope:
		w.WriteQuoted(invalidKey + fault.Error())
	case ingest.BadBody:
		// Named, a missing field ends the SDKs' retries.
		w.WriteQuoted(fault.Error())
		w.WriteString(`,"missing_field":"events"`)
	case ingest.RateLimited, ingest.OverQuota:
		// Events that are named here wait for half a minute, others for nothing.
		w.WriteQuoted(fault.Error())
		w.WriteString(`,"eps_threshold":0,"throttled_devices":{},"throttled_users":{},"exceeded_daily_quota_devices":{},"exceeded_daily_quota_users":{},"throttled_events":[`)
		for i := range b.Len() {
			if i > 0 {
				w.WriteString(",")
			}
			w.Body = strconv.AppendInt(w.Body, int64(i), 10)
		}
		w.WriteString("]")
	default:
		w.WriteQuoted(fault.Error())
	}
	w.WriteString("}")
}

// answerForm is that of identify and groupidentify: words.
func answerForm(_ *ingest.Request, _ *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	w.ContentType = "text/plain; charset=utf-8"
	if fault != nil {
		w.Status = status(fault.Kind)
		if fault.Kind == ingest.BadKey {
			w.WriteString("invalid_api_key")
			return
		}
		w.WriteString(fault.Error())
		return
	}
	w.WriteString("success")
}
