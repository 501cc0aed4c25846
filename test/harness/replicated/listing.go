package replicated

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/go-zookeeper/zk"
)

// Listing stands for system.zookeeper, which the library does not attach: a table
// of that name reads over HTTP which nodes the Keeper has below a replica. It asks
// the Keeper itself, past whatever a test puts between it and ClickHouse.
type Listing struct {
	server *http.Server
	url    string
	keeper string
}

// List serves the nodes of the Keeper at host:port until it is closed.
func List(keeper string) (*Listing, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("list nodes of the Keeper: %w", err)
	}
	l := &Listing{url: "http://" + ln.Addr().String() + "/", keeper: keeper}
	l.server = &http.Server{Handler: http.HandlerFunc(l.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = l.server.Serve(ln) }() // ends with Close
	return l, nil
}

// Close ends the serving.
func (l *Listing) Close() error { return l.server.Close() }

// serve answers with path and name of each node, separated by a tab.
func (l *Listing) serve(w http.ResponseWriter, r *http.Request) {
	text, err := l.nodes(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, text) // or ClickHouse has gone
}

// tablesPath is where package tables puts replicas:
// tablesPath/{uuid}/{shard}/replicas/{replica}/parts.
const tablesPath = "/clickhouse/tables"

func (l *Listing) nodes(ctx context.Context) (string, error) {
	conn, events, err := zk.Connect([]string{l.keeper}, 3*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	for timeout := time.After(3 * time.Second); ; {
		select {
		case e := <-events:
			if e.State != zk.StateHasSession {
				continue
			}
		case <-timeout:
			return "", errors.New("the Keeper does not answer")
		case <-ctx.Done():
			return "", ctx.Err()
		}
		break
	}
	// What is gone meanwhile has no nodes.
	children := func(path string) []string {
		names, _, childrenErr := conn.Children(path)
		if childrenErr != nil && !errors.Is(childrenErr, zk.ErrNoNode) {
			err = errors.Join(err, childrenErr)
		}
		return names
	}
	text := ""
	for _, table := range children(tablesPath) {
		for _, shard := range children(tablesPath + "/" + table) {
			replicas := tablesPath + "/" + table + "/" + shard + "/replicas"
			for _, replica := range children(replicas) {
				parts := replicas + "/" + replica + "/parts"
				for _, part := range children(parts) {
					text += parts + "\t" + part + "\n"
				}
			}
		}
	}
	return text, err
}

type silent struct{}

func (silent) Printf(string, ...any) {}
