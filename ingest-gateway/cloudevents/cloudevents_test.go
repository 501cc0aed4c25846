package cloudevents

import (
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{Protocol{}} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }
