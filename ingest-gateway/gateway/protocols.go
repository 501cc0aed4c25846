package gateway

import (
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/segment"
)

// Protocols lists the wire protocols, in the order in which they are asked where
// several claim a path: those that tell a stranger's request by a header or a
// field go before those that take what is left.
func Protocols() []ingest.Protocol {
	return []ingest.Protocol{
		segment.New(),
	}
}
