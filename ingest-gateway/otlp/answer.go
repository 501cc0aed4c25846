package otlp

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
)

// status chooses the status: exporters send again on 429, 502, 503 and 504 alone
// and drop on every other, 500 too.
func status(k ingest.Kind) int {
	if k == ingest.Broken || k == ingest.TooSlow {
		return http.StatusServiceUnavailable
	}
	return k.Status()
}

// speaksJSON tells the request's type by its header, and where that says neither by
// its first bytes.
func speaksJSON(r *ingest.Request) bool {
	kind, _, _ := strings.Cut(r.Header("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case typeJSON:
		return true
	case typeProtobuf:
		return false
	}
	return isJSON(r.Body)
}

// answer speaks as the request did: an ExportLogsServiceResponse, which names how
// many records were put aside, or a google.rpc.Status.
func answer(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	json := speaksJSON(r)
	w.ContentType = typeProtobuf
	if json {
		w.ContentType = typeJSON
	}
	if fault != nil {
		w.Status = status(fault.Kind)
		writeStatus(w, json, fault)
		return
	}
	rejected, why := b.Count(ingest.Rejected), ""
	for i := 0; i < b.Len() && rejected > 0 && why == ""; i++ {
		if v := b.Verdict(i); v.State == ingest.Rejected {
			why = "the first: " + v.Code + ": " + v.Detail
		}
	}
	switch {
	case rejected == 0 && json:
		w.WriteString("{}")
	case rejected == 0:
	case json:
		w.WriteString(`{"partialSuccess":{"rejectedLogRecords":"`)
		w.Body = strconv.AppendInt(w.Body, int64(rejected), 10)
		w.WriteString(`","errorMessage":`)
		w.WriteQuoted(why)
		w.WriteString("}}")
	default:
		partial := binary.AppendUvarint([]byte{1<<3 | wireVarint}, uint64(rejected))
		partial = appendText(partial, 2, why)
		w.Body = appendText(w.Body, 1, string(partial))
	}
}

// writeStatus writes a google.rpc.Status: a code of gRPC and a message.
func writeStatus(w *ingest.Reply, json bool, fault *ingest.Fault) {
	code := grpcCode(fault.Kind)
	if json {
		w.WriteString(`{"code":`)
		w.Body = strconv.AppendInt(w.Body, int64(code), 10)
		w.WriteString(`,"message":`)
		w.WriteQuoted(fault.Error())
		w.WriteString("}")
		return
	}
	w.Body = append(w.Body, 1<<3|wireVarint, code)
	w.Body = appendText(w.Body, 2, fault.Error())
}

func grpcCode(k ingest.Kind) byte {
	switch k {
	case ingest.BadKey, ingest.BadOrigin, ingest.BadScope:
		return 16 // UNAUTHENTICATED
	case ingest.BadBody:
		return 3 // INVALID_ARGUMENT
	case ingest.TooLarge, ingest.RateLimited, ingest.OverQuota:
		return 8 // RESOURCE_EXHAUSTED
	}
	return 14 // UNAVAILABLE
}

func appendText(dst []byte, number byte, s string) []byte {
	dst = append(dst, number<<3|wireBytes)
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
