package posthog

import (
	"net/http"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
)

// Answers to the side calls: no flags, nothing recorded, nothing loaded.
const (
	noFlags = `{"flags":{},"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false,` +
		`"sessionRecording":false,"supportedCompression":["gzip","gzip-js"],"config":{},"siteApps":[],"surveys":false,"toolbarParams":{},"isAuthenticated":false}`
	remoteConfig = `"supportedCompression":["gzip","gzip-js"],"hasFeatureFlags":false,"captureDeadClicks":false,` +
		`"capturePerformance":false,"autocapture_opt_out":false,"autocaptureExceptions":false,"analytics":{"endpoint":"/i/v0/e/"},` +
		`"elementsChainAsString":true,"sessionRecording":false,"heatmaps":false,"surveys":false,"productTours":false,` +
		`"defaultIdentifiedOnly":true,"siteApps":[]}`
)

// sideRoutes are the calls that SDKs make beside capturing. None needs a key that
// is known: they say nothing about anybody.
func sideRoutes() []ingest.Route {
	nothing := func(*ingest.Request, *ingest.Batch) error { return nil }
	fixed := func(body string) func(*ingest.Request, *ingest.Batch, *ingest.Fault, *ingest.Reply) {
		return func(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
			if fault != nil {
				answer(r, b, fault, w)
				return
			}
			w.WriteString(body)
		}
	}
	return []ingest.Route{
		{Method: http.MethodPost, Path: "/flags", Decode: nothing, Answer: fixed(noFlags)},
		{Method: http.MethodPost, Path: "/decide", Decode: nothing, Answer: fixed(noFlags)},
		{Method: http.MethodGet, Path: "/array/{token}/config", Decode: nothing, Answer: config},
		{Method: http.MethodGet, Path: "/array/{token}/config.js", Decode: nothing, Answer: configScript},
		{Method: http.MethodGet, Path: "/api/surveys", Decode: nothing, Answer: fixed(`{"surveys":[]}`)},
		{Method: http.MethodGet, Path: "/api/early_access_features", Decode: nothing, Answer: fixed(`{"earlyAccessFeatures":[]}`)},
		{Method: http.MethodGet, Path: "/api/web_experiments", Decode: nothing, Answer: fixed(`{"experiments":[]}`)},
		{Method: http.MethodPost, Path: "/s", Decode: nothing, Answer: fixed(`{"status":1}`)},
	}
}

func config(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		answer(r, b, fault, w)
		return
	}
	writeConfig(r, w)
}

func writeConfig(r *ingest.Request, w *ingest.Reply) {
	w.WriteString(`{"token":`)
	w.WriteQuoted(mapping.Valid(r.Param("token")))
	w.WriteString("," + remoteConfig)
}

// configScript is the same as a script that leaves it where posthog-js looks.
func configScript(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		answer(r, b, fault, w)
		return
	}
	w.ContentType = "application/javascript; charset=utf-8"
	w.WriteString("(function(){window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{};window._POSTHOG_REMOTE_CONFIG[")
	w.WriteQuoted(mapping.Valid(r.Param("token")))
	w.WriteString("]={config:")
	writeConfig(r, w)
	w.WriteString(",siteApps:[]}})();")
}
