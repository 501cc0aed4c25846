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
// several claim a path: those that recognise their requests by a header or a field come
// before those that take any request. PostHog comes before Amplitude (/batch) and
// Mixpanel (/track, /engage); Gainsight PX and Moesif (/v1/users) recognise theirs by
// headers. Known ids are remembered in this process only; New makes gateways share
// them.
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
