package moesif

import (
	"net/http"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// status chooses the status. The browser's batcher sends again on 5xx alone and
// drops on 429, the server SDKs do neither.
func status(k ingest.Kind) int {
	if k == ingest.RateLimited || k == ingest.TooSlow {
		return http.StatusServiceUnavailable
	}
	return k.Status()
}

func answer(_ *ingest.Request, _ *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		writeFault(fault, w)
		return
	}
	w.Status = http.StatusCreated
	w.SetHeader(etagHeader, etag)
}

// The SDKs ask for the configuration again when this differs from what it came with:
// https://www.moesif.com/docs/api#configuration. It never changes.
const etagHeader, etag = "X-Moesif-Config-ETag", "uptake-1"

func answerWith(body string) func(*ingest.Request, *ingest.Batch, *ingest.Fault, *ingest.Reply) {
	return func(_ *ingest.Request, _ *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
		if fault != nil {
			writeFault(fault, w)
			return
		}
		w.SetHeader(etagHeader, etag)
		w.WriteString(body)
	}
}

func writeFault(fault *ingest.Fault, w *ingest.Reply) {
	w.Status = status(fault.Kind)
	w.WriteString(`{"error":`)
	w.WriteQuoted(fault.Error())
	w.WriteString("}")
}
