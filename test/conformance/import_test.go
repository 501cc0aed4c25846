package conformance

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// importSources are those whose exports deploy/import takes.
var importSources = []string{"amplitude", "mixpanel", "posthog", "segment"}

// importApp is the app of an import.
func importApp(source string) string { return "import-" + source }

// exportLine is event i of a source's export; the eighth names no id.
func exportLine(source string, i int) string {
	at := then.Add(time.Duration(i) * time.Second)
	id := fmt.Sprintf("export-%03d", i)
	if i == 7 {
		id = ""
	}
	user := fmt.Sprintf("u%d", i%5)
	switch source {
	case "segment":
		return fmt.Sprintf(`{"type":"track","event":"Item Scanned","userId":%q,"messageId":%q,"timestamp":%q,"properties":{"n":%d}}`, user, id, at.Format(time.RFC3339Nano), i)
	case "posthog":
		return fmt.Sprintf(`{"uuid":%q,"event":"Item Scanned","distinct_id":%q,"timestamp":%q,"properties":"{\"n\":%d}"}`, id, user, at.Format(time.RFC3339Nano), i)
	case "mixpanel":
		return fmt.Sprintf(`{"event":"Item Scanned","properties":{"$insert_id":%q,"distinct_id":%q,"time":%d,"n":%d}}`, id, user, at.UnixMilli(), i)
	default:
		return fmt.Sprintf(`{"$insert_id":%q,"event_type":"Item Scanned","user_id":%q,"event_time":%q,"event_properties":{"n":%d},"user_properties":{"plan":"pro"}}`,
			id, user, at.Format("2006-01-02 15:04:05.000000"), i)
	}
}

// killer passes an import's requests on and kills the importer at some of them:
// before the gateway has the request, and after it has stored it.
type killer struct {
	forward http.Handler

	mu       sync.Mutex // covers below
	requests int
	kills    int
	process  *os.Process
}

func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests++
	switch k.requests {
	case 3, 8:
		k.kills++
		_ = k.process.Kill() // it waits for this answer, so it lives
	case 5, 11:
		k.forward.ServeHTTP(httptest.NewRecorder(), r)
		k.kills++
		_ = k.process.Kill()
	default:
		k.forward.ServeHTTP(w, r)
	}
}

// TestImportIsKilled kills the import of each source's export four times, at the
// worst moments, and finds every event of the file in ClickHouse once; and again
// when the whole file is sent once more.
func TestImportIsKilled(t *testing.T) {
	s := forTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary, err := stack.Binary(ctx, "deploy/import", stack.Build{})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := url.Parse(s.url())
	if err != nil {
		t.Fatal(err)
	}
	const lines, batch = 60, 5
	for _, source := range importSources {
		k := &killer{forward: httputil.NewSingleHostReverseProxy(gateway)}
		server := httptest.NewServer(k)
		defer server.Close()
		file := filepath.Join(t.TempDir(), "export.jsonl")
		var text strings.Builder
		for i := range lines {
			text.WriteString(exportLine(source, i) + "\n")
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		run := func() error {
			cmd := exec.CommandContext(ctx, binary, "-from", source, "-gateway", server.URL, "-batch-events", fmt.Sprint(batch), file)
			cmd.Env = append(os.Environ(), "UPTAKE_WRITE_KEY="+keyOf(importApp(source)))
			var log strings.Builder
			cmd.Stderr = &log
			k.mu.Lock()
			err := cmd.Start()
			k.process = cmd.Process
			k.mu.Unlock()
			if err == nil {
				err = cmd.Wait()
			}
			if err != nil && cmd.ProcessState.Exited() {
				t.Fatalf("%s: %v\n%s", source, err, log.String())
			}
			return err
		}
		runs := 1
		for ; run() != nil && runs < 10; runs++ {
		}
		// What was sent before a kill is not sent again, but for the batch that was
		// under way.
		if k.kills != 4 || runs != 5 || k.requests != lines/batch+4 {
			t.Errorf("%s: %d kills in %d runs with %d requests, want 4, 5 and %d", source, k.kills, runs, k.requests, lines/batch+4)
		}
		if err := os.Remove(file + ".import-state.json"); err != nil {
			t.Fatal(err)
		}
		if err := run(); err != nil {
			t.Errorf("%s: once more: %v", source, err)
		}
	}
	s.settled(t)
	events, rejected := s.events(t), s.rejected(t)
	for _, source := range importSources {
		app := importApp(source)
		ids, n := map[string]bool{}, map[string]bool{}
		rows := 0
		for _, e := range events[app] {
			if ids[e.id] {
				t.Errorf("%s: %q is there twice", source, e.id)
			}
			ids[e.id] = true
			if e.kind != event.KindTrack {
				continue // what Amplitude's exports say of users
			}
			rows++
			n[e.properties] = true
			if e.event != "Item Scanned" || e.user == "" || e.at.Before(then) || e.protocol != source {
				t.Errorf("%s: got %+v", source, e)
			}
		}
		if rows != lines || len(n) != lines || len(rejected[app]) != 0 {
			t.Errorf("%s: %d rows of %d events, %d put aside, want %d and none", source, rows, len(n), len(rejected[app]), lines)
		}
	}
}
