package machine

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net"
	"path/filepath"
)

const bannerText = `
Uptake runs on this machine. Everything it keeps is in %[1]s

  see usage         %[10]s

  take events       http://%[2]s       app %[7]s, write key %[8]s
  SQL               http://%[3]s/play?database=%[9]s&run=1#%[12]s
                    database %[9]s; native protocol on %[4]s as uptake_reader;
                    commands of rollup-writer need more:%[11]s
  log (Kafka)       %[5]s
  metrics, health   http://%[6]s/metrics and /readyz

Send an event:

  curl -s http://%[2]s/v1/track -u %[8]s: -d '{"userId": "maria", "event": "Item Scanned", "context": {"groupId": "corner-shop"}}'

A moment later, see what the account used:

  curl -s 'http://%[3]s/?database=%[9]s' --data-binary "SELECT day, product_id, module_id, feature_id, sum(events) AS events FROM account_feature_daily WHERE account_id = 'corner-shop' GROUP BY ALL ORDER BY ALL FORMAT PrettyCompact"

Ctrl-C stops it in order. What was acked is kept, whatever happens to this process.

`

// playQuery is what the banner's link to ClickHouse's own page runs.
const playQuery = "SELECT * FROM account_feature_daily LIMIT 99"

func (m *Machine) banner(data string) {
	fmt.Fprintf(m.out, bannerText, data, dialable(m.cfg.GatewayAddr), dialable(m.cfg.ClickHouseHTTPAddr), dialable(m.cfg.ClickHouseAddr),
		m.cfg.KafkaAddr, dialable(m.cfg.MetricsAddr), App, WriteKey, m.cfg.ClickHouseDatabase, cmp.Or(m.consoleURL, "(no console: -console-addr is empty)"), m.login(data),
		base64.StdEncoding.EncodeToString([]byte(playQuery)))
}

// login is what a command of the rollup-writer needs to log in at ClickHouse.
func (m *Machine) login(data string) string {
	if m.access == nil {
		return ""
	}
	return " -clickhouse-user " + m.access.Owner + " -clickhouse-password file:" + filepath.Join(data, ownerPassword)
}

// dialable is an address to connect to for one to listen on.
func dialable(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // Validate has told what is wrong with it
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
