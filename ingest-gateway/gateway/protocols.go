package gateway

import (
	"github.com/uptakehq/uptake/ingest-gateway/amplitude"
	"github.com/uptakehq/uptake/ingest-gateway/cloudevents"
	"github.com/uptakehq/uptake/ingest-gateway/csb"
	"github.com/uptakehq/uptake/ingest-gateway/gainsightpx"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/known"
	"github.com/uptakehq/uptake/ingest-gateway/mixpanel"
	"github.com/uptakehq/uptake/ingest-gateway/moesif"
	"github.com/uptakehq/uptake/ingest-gateway/otlp"
	"github.com/uptakehq/uptake/ingest-gateway/posthog"
	"github.com/uptakehq/uptake/ingest-gateway/segment"
)

// Protocols lists the wire protocols, in the order in which they are asked where
// several claim a path: those that tell a stranger's request by a header or a
// field go before those that take what is left. PostHog goes before Amplitude
// (/batch) and Mixpanel (/track, /engage), Gainsight PX and Moesif (/v1/users)
// go by their headers. What exists is remembered in this process alone; New lets
// gateways share it.
func Protocols() []ingest.Protocol {
	return protocols(known.NewMemory(known.DefaultLimit))
}

func protocols(memory gainsightpx.Memory) []ingest.Protocol {
	return []ingest.Protocol{
		segment.New(),
		posthog.Protocol{},
		amplitude.Protocol{},
		mixpanel.Protocol{},
		moesif.Protocol{},
		gainsightpx.New(memory),
		csb.Protocol{},
		cloudevents.Protocol{},
		otlp.Protocol{},
	}
}
