package gainsightpx

import (
	"net/http"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
)

func (p *Protocol) answerCreated(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		writeError(fault.Kind.Status(), fault.Error(), w)
		return
	}
	w.Status = http.StatusCreated
	// PX knows whom its events name. One that could not be remembered is when it
	// is named again; the event is stored in any case.
	var top mapping.Object
	if b.Count(ingest.Accepted) == 1 && readTop(r, &top) {
		f := &mapping.Fields{Object: &top}
		if id := f.ID("identifyId"); id != "" && top.Get("userType").Text() == "USER" {
			_ = p.memory.Add(b.App().ID, users.kind, id)
		}
		if id := f.ID("accountId"); id != "" {
			_ = p.memory.Add(b.App().ID, accounts.kind, id)
		}
	}
}

// answerObject gives the answers that clients branch on: 201 and 400 for a
// creation, 204 and 404 for a change. What is stored but could not be made known
// is answered 503: sent again it stores the same.
func (p *Protocol) answerObject(k resource, r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		writeError(fault.Kind.Status(), fault.Error(), w)
		return
	}
	switch v := b.Verdict(0); {
	case v.State == ingest.Ignored:
		writeError(http.StatusBadRequest, "exists already", w)
	case v.State == ingest.Rejected && strings.HasPrefix(v.Detail, unknown):
		writeError(http.StatusNotFound, unknown, w)
	case v.State == ingest.Rejected:
		writeError(http.StatusBadRequest, v.Code+": "+v.Detail, w)
	default:
		w.Status = http.StatusCreated
		if r.Method == http.MethodPut {
			w.Status = http.StatusNoContent
		}
		var top mapping.Object
		if readTop(r, &top) {
			if id := idOf(k, r, &mapping.Fields{Object: &top}); id != "" {
				if err := p.memory.Add(b.App().ID, k.kind, id); err != nil {
					fault := unavailable(err)
					w.RetryAfter(fault.RetryAfter)
					writeError(fault.Kind.Status(), fault.Error(), w)
				}
			}
		}
	}
}

// answerQuestion says 200 or 404.
func (p *Protocol) answerQuestion(k resource, r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		writeError(fault.Kind.Status(), fault.Error(), w)
		return
	}
	id := pathID(r)
	switch exists, err := p.memory.Has(b.App().ID, k.kind, id); {
	case err != nil:
		fault := unavailable(err)
		w.RetryAfter(fault.RetryAfter)
		writeError(fault.Kind.Status(), fault.Error(), w)
		return
	case !exists:
		writeError(http.StatusNotFound, unknown, w)
		return
	}
	w.WriteString("{")
	w.WriteQuoted(k.ids[0])
	w.WriteString(":")
	w.WriteQuoted(id)
	w.WriteString("}")
}

// readTop reads the body's object once more.
func readTop(r *ingest.Request, top *mapping.Object) bool {
	text, err := r.Text()
	if err != nil {
		return false
	}
	top.Parse(text)
	return top.Len() > 0
}

func writeError(status int, text string, w *ingest.Reply) {
	w.Status = status
	w.WriteString(`{"message":`)
	w.WriteQuoted(text)
	w.WriteString("}")
}
