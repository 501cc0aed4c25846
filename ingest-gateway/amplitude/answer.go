package amplitude

import (
	"maps"
	"net/http"
	"slices"
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
	if invalid(b) {
		w.Status = http.StatusBadRequest
		writeInvalid(b, w)
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

// lists are those of events that Amplitude's API does not take, by why.
var lists = [...]string{"events_with_invalid_fields", "events_with_missing_fields", "events_with_invalid_id_lengths"}

// listed says in which of the lists a rejected event belongs, -1 for none: groups of
// a type that the app does not count are valid to Amplitude.
func listed(v ingest.Verdict) int {
	switch {
	case v.State != ingest.Rejected || v.Code == ingest.CodeUnknownKind:
		return -1
	case v.Code == ingest.CodeMissingField:
		return 1
	case v.Code == ingest.CodeTooLong && (v.Field == "user_id" || v.Field == "device_id"):
		return 2
	}
	return 0
}

// invalid reports whether an event of the batch is one that Amplitude's API refuses.
func invalid(b *ingest.Batch) bool {
	for i := range b.Len() {
		if b.Count(ingest.Rejected) == 0 {
			return false
		}
		if listed(b.Verdict(i)) >= 0 {
			return true
		}
	}
	return false
}

// writeInvalid names the events that are invalid by field and index, as the API does:
// the SDKs report these and send the others again, whose insert ids are known by then.
func writeInvalid(b *ingest.Batch, w *ingest.Reply) {
	var byField [len(lists)]map[string][]int
	detail := ""
	for i := range b.Len() {
		v := b.Verdict(i)
		list := listed(v)
		if list < 0 {
			continue
		}
		if detail == "" {
			detail = v.Code + ": " + v.Detail
		}
		if byField[list] == nil {
			byField[list] = map[string][]int{}
		}
		field := v.Field
		if field == "" {
			field = "event"
		}
		byField[list][field] = append(byField[list][field], i)
	}
	w.WriteString(`{"code":400,"error":`)
	w.WriteQuoted(detail)
	for list, fields := range byField {
		w.WriteString(`,"` + lists[list] + `":{`)
		for i, field := range slices.Sorted(maps.Keys(fields)) {
			if i > 0 {
				w.WriteString(",")
			}
			w.WriteQuoted(field)
			w.WriteString(":[")
			for j, index := range fields[field] {
				if j > 0 {
					w.WriteString(",")
				}
				w.Body = strconv.AppendInt(w.Body, int64(index), 10)
			}
			w.WriteString("]")
		}
		w.WriteString("}")
	}
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
func answerForm(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
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
	for i := range b.Len() {
		if v := b.Verdict(i); listed(v) >= 0 {
			w.Status = http.StatusBadRequest
			w.WriteString(v.Code + ": " + v.Detail)
			return
		}
	}
	w.WriteString("success")
}
