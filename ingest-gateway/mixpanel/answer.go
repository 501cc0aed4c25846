package mixpanel

import (
	"net/http"
	"strconv"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// answer is that of track, engage and groups: exactly 1 for success, which
// mixpanel-node looks at and not at the status; with verbose=1, in the query or in
// the form, an object.
func answer(r *ingest.Request, _ *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	verbose := option(r, "verbose") == "1"
	switch {
	case fault == nil && verbose:
		w.WriteString(`{"status":1,"error":null}`)
	case fault == nil:
		w.WriteString("1")
	case verbose:
		w.Status = fault.Kind.Status()
		w.WriteString(`{"status":0,"error":`)
		w.WriteQuoted(fault.Error())
		w.WriteString("}")
	default:
		w.Status = fault.Kind.Status()
		w.WriteString("0")
	}
}

// answerImport is that of import. Who says whether to be strict, as mixpanel-go's
// Import does, reads the import API's answer, whatever verbose says. mixpanel-node
// imports with the query of track, Python, Ruby and mixpanel-go's Merge with a form,
// and all of these want the answers of track.
func answerImport(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	_, strict := r.LookupQuery("strict")
	_, verbose := r.Option("verbose")
	if !strict && (verbose || r.IsForm()) {
		answer(r, b, fault, w)
		return
	}
	rejected := b.Count(ingest.Rejected)
	switch {
	case fault != nil:
		w.Status = fault.Kind.Status()
		writeStatus(w, w.Status)
		w.WriteString(`,"error":`)
		w.WriteQuoted(fault.Error())
		w.WriteString(`,"num_records_imported":0}`)
	case rejected > 0 && r.QueryValue("strict") == "1":
		// Partial success: the good ones are stored.
		w.Status = http.StatusBadRequest
		writeStatus(w, w.Status)
		w.WriteString(`,"error":"some data points in the request failed validation","num_records_imported":`)
		w.Body = strconv.AppendInt(w.Body, int64(b.Len()-rejected), 10)
		w.WriteString(`,"failed_records":[`)
		writeFailed(b, w)
		w.WriteString("]}")
	default:
		writeStatus(w, http.StatusOK)
		w.WriteString(`,"num_records_imported":`)
		w.Body = strconv.AppendInt(w.Body, int64(b.Len()-rejected), 10)
		w.WriteString("}")
	}
}

func writeStatus(w *ingest.Reply, code int) {
	w.WriteString(`{"code":`)
	w.Body = strconv.AppendInt(w.Body, int64(code), 10)
	w.WriteString(`,"status":`)
	w.WriteQuoted(http.StatusText(code))
}

func writeFailed(b *ingest.Batch, w *ingest.Reply) {
	first := true
	for i := range b.Len() {
		v := b.Verdict(i)
		if v.State != ingest.Rejected {
			continue
		}
		if !first {
			w.WriteString(",")
		}
		first = false
		w.WriteString(`{"index":`)
		w.Body = strconv.AppendInt(w.Body, int64(i), 10)
		w.WriteString(`,"insert_id":`)
		w.WriteQuoted(v.MessageID)
		w.WriteString(`,"field":`)
		w.WriteQuoted(v.Field)
		w.WriteString(`,"message":`)
		w.WriteQuoted(v.Code + ": " + v.Detail)
		w.WriteString("}")
	}
}
