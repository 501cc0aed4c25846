// Package console serves the pages that people look at: who uses what, whether events
// arrive, whether the pipeline is healthy.
//
// It is a process of its own that only reads ClickHouse, as a user with read access
// only. It owns the HTTP server, access control, and the view models of the pages. The
// statements are in console/question, the templates, charts and the script in
// console/page. Pages load nothing from other hosts.
package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/rollup-writer/console/verdicts"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config holds the console's address, its access control, and the bounds of a query.
type Config struct {
	// ClickHouse is the server that is queried. Its user should have no rights but to
	// read; the console's statements are read-only in any case.
	ClickHouse clickhouse.Config
	Addr       string
	// Hosts are names under which the console may be addressed, besides the address on
	// which it listens.
	Hosts setting.Strings
	// TokenFile holds the token of the address that is printed at the first start. It
	// is created, with mode 0600, if it does not exist.
	TokenFile string
	// AppTokens names a file with the tokens of programs, each of one app; see
	// readAppTokens. Empty: none.
	AppTokens string
	// SignIn is the provider at which people sign in.
	SignIn signin.Config
	// AccessFile says which groups and users may see what; see package signin. Empty: all
	// who are admitted see everything.
	AccessFile string
	// AppUsers is a folder with a password for each app, in files named by the apps: the
	// console asks about an app as the user <database>_console_<app>_user, to whom row
	// policies show that app alone. Empty: it asks about every app as ClickHouse's user.
	AppUsers string
	// ProxyPeers are networks from which a proxy with sign-in may name the user in the
	// header Remote-User and the groups in Remote-Groups, if the header X-Proxy-Secret
	// holds ProxySecret. From any other peer the headers are ignored.
	ProxyPeers  setting.Strings
	ProxySecret setting.Secret
	// Zone of days if an address names none.
	Zone string
	// GatewayURL and WriteKey are used in the example event of an empty page. Everybody
	// who may see the console sees WriteKey.
	GatewayURL string
	WriteKey   string

	// SendURL is where the console sends test events; empty: GatewayURL.
	SendURL string

	// Live shows the pipeline's verdicts on single events, which it reads from and asks for
	// in Kafka. False: the live view shows what ClickHouse has.
	Live     bool
	Kafka    kafka.Config
	Registry registry.Config

	// Notes lets people write annotations and save questions, and records who looked at
	// whom; both go to Kafka. False: the console shows those that there are.
	Notes bool

	// MailTargets are names of mail targets of the alerts process (with reports: true) to
	// which people may have questions and boards mailed. Empty: to none.
	MailTargets setting.Strings

	// FeedbackSecret opens the feedback links in delivered alerts: the secret of the
	// process that delivers them. Empty: links are refused.
	FeedbackSecret setting.Secret

	// Bounds of one query: ClickHouse does not bound processor time, so rows and time
	// are bounded.
	QueryTimeout time.Duration
	QueryRows    uint64
	QueryMemory  uint64
}

// DefaultConfig is a console for this machine only.
func DefaultConfig() Config {
	return Config{
		ClickHouse:   clickhouse.DefaultConfig(),
		Kafka:        kafka.DefaultConfig("uptake-console"),
		SignIn:       signin.DefaultConfig(),
		Addr:         "127.0.0.1:8088",
		TokenFile:    "console-token",
		Zone:         "UTC",
		GatewayURL:   "http://127.0.0.1:8080",
		QueryTimeout: 20 * time.Second,
		QueryRows:    2_000_000_000,
		QueryMemory:  2 << 30,
	}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.ClickHouse.Flags(set)
	set.StringVar(&c.Addr, "console-addr", c.Addr, "`host:port` of the pages; another than a loopback address needs sign-in: console-oidc-issuer or console-proxy-peers")
	set.Var(&c.Hosts, "console-hosts", "comma-separated `names` under which a browser may address the console, besides the address on which it listens")
	set.StringVar(&c.TokenFile, "console-token-file", c.TokenFile, "`file` with the token of the printed address; created with mode 0600 if it does not exist")
	set.StringVar(&c.AppTokens, "console-app-tokens", c.AppTokens, "`file` of lines APP sha256:HASH: hashes of tokens with which programs may ask about that one app under /api/v1")
	c.SignIn.Flags(set)
	set.StringVar(&c.AccessFile, "console-access-file", c.AccessFile, "`file` that says which groups and users may see which apps, as viewer, analyst or admin; read again when it changes; empty: all who are admitted see everything")
	set.StringVar(&c.AppUsers, "console-app-users", c.AppUsers, "`folder` with a file for each app that holds the password of ClickHouse's user <database>_console_<app>_user: questions about the app are asked as that user; empty: all are asked as clickhouse-user")
	set.Var(&c.ProxyPeers, "console-proxy-peers", "comma-separated `networks` of a proxy with sign-in that names the user in Remote-User and the groups in Remote-Groups, such as 10.0.3.0/24; the headers are ignored from other peers")
	set.Var(&c.ProxySecret, "console-proxy-secret", "`secret` that the proxy sends in X-Proxy-Secret, or file:PATH; at least 16 characters")
	set.StringVar(&c.Zone, "console-zone", c.Zone, "time `zone` of days if an address names none, such as Europe/Vienna")
	set.StringVar(&c.GatewayURL, "console-gateway-url", c.GatewayURL, "`URL` of the gateway in the example event of an empty page")
	set.StringVar(&c.WriteKey, "console-write-key", c.WriteKey, "write `key` in the example event of an empty page; empty shows a placeholder")
	set.StringVar(&c.SendURL, "console-send-url", c.SendURL, "`URL` of the gateway to which the console sends test events, if it reaches it under another than console-gateway-url")
	set.BoolVar(&c.Live, "console-live", c.Live, "show in the live view what the pipeline decided about each event: asks enrichers for it in Kafka, with the kafka-* settings")
	set.BoolVar(&c.Notes, "console-notes", c.Notes, "take annotations, saved questions and boards, and record who looked at whom: writes to topics in Kafka, with the kafka-* settings")
	set.Var(&c.MailTargets, "console-mail-targets", "comma-separated `names` of targets of the alerts process, with reports: true, to which questions and boards may be mailed on a schedule; needs console-notes")
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	set.Var(&c.FeedbackSecret, "console-feedback-secret", "`secret` that opens feedback links, or file:PATH, the same as alerts-feedback-secret; empty: links are refused")
	set.DurationVar(&c.QueryTimeout, "console-query-timeout", c.QueryTimeout, "bound on the duration of one query")
	set.Uint64Var(&c.QueryRows, "console-query-rows", c.QueryRows, "bound on the `rows` read by one query")
	set.Uint64Var(&c.QueryMemory, "console-query-memory", c.QueryMemory, "bound on the `bytes` of memory of one query")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		errs = append(errs, fmt.Errorf("console-addr must be host:port: %w", err))
	} else if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) && len(c.ProxyPeers) == 0 && c.SignIn.Issuer == "" {
		errs = append(errs, fmt.Errorf("console-addr must be a loopback address where no sign-in is configured (got %q): name a provider in console-oidc-issuer, or put a proxy with sign-in before the console and name it in console-proxy-peers", c.Addr))
	}
	errs = append(errs, c.SignIn.Validate())
	if c.SignIn.Issuer != "" && c.AccessFile == "" {
		errs = append(errs, errors.New("console-oidc-issuer needs console-access-file: otherwise everybody who has an account at the provider would see everything"))
	}
	for _, peer := range c.ProxyPeers {
		if _, err := netip.ParsePrefix(peer); err != nil {
			errs = append(errs, fmt.Errorf("console-proxy-peers must list networks such as 10.0.3.0/24 (got %q)", peer))
		}
	}
	switch {
	case len(c.ProxyPeers) > 0 && len(c.ProxySecret) < 16:
		errs = append(errs, errors.New("console-proxy-peers needs a console-proxy-secret of at least 16 characters"))
	case len(c.ProxyPeers) == 0 && c.ProxySecret != "":
		errs = append(errs, errors.New("console-proxy-secret needs console-proxy-peers"))
	}
	errs = append(errs, c.ClickHouse.Validate())
	if c.Live {
		errs = append(errs, c.Registry.Validate())
	}
	if c.Live || c.Notes {
		errs = append(errs, c.Kafka.Validate())
	}
	if len(c.MailTargets) > 0 && !c.Notes {
		errs = append(errs, errors.New("console-mail-targets needs console-notes"))
	}
	if c.TokenFile == "" {
		errs = append(errs, errors.New("console-token-file must be named"))
	}
	if _, err := time.LoadLocation(c.Zone); err != nil || c.Zone == "" || c.Zone == "Local" {
		errs = append(errs, fmt.Errorf("console-zone must be a zone of the tz database, such as Europe/Vienna (got %q)", c.Zone))
	}
	if c.FeedbackSecret != "" && len(c.FeedbackSecret) < signal.MinLinkSecret {
		errs = append(errs, fmt.Errorf("console-feedback-secret must have at least %d bytes (got %d)", signal.MinLinkSecret, len(c.FeedbackSecret)))
	}
	for name, text := range map[string]string{"console-gateway-url": c.GatewayURL, "console-send-url": c.SendURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, fmt.Errorf("%s must be an http or https URL (got %q)", name, text))
		}
	}
	if c.QueryTimeout < time.Second {
		errs = append(errs, fmt.Errorf("console-query-timeout must be at least 1s (got %s)", c.QueryTimeout))
	}
	if c.QueryRows == 0 || c.QueryMemory == 0 {
		errs = append(errs, errors.New("console-query-rows and console-query-memory must be > 0"))
	}
	return errors.Join(errs...)
}

// Dependencies of a Console.
type Dependencies struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time // time.Now where nil
	// Acknowledge writes feedback on an alert to the log. Nil: the console only reads.
	Acknowledge func(context.Context, signal.Acknowledgement) error
	// WriteNote takes the place of the log that Config.Notes opens, for tests.
	WriteNote func(context.Context, *note.Note) error
	// Look takes the place of the same log, for tests.
	Look func(note.Look, func(error))
}

// Console is the server. Create it with New, then call Run once.
type Console struct {
	cfg     Config
	log     *slog.Logger
	asker   *asker
	pages   *page.Set
	access  *access
	metrics *metrics
	// acknowledge is nil if the console only reads.
	acknowledge func(context.Context, signal.Acknowledgement) error
	// writeNote is nil if the console takes no notes; notes is then nil too.
	writeNote func(context.Context, *note.Note) error
	notes     *note.Log
	looks     *looks
	noteWait  time.Duration  // how long a page waits for the writer to load a note
	verdicts  *verdicts.Feed // may be nil
	gateway   *http.Client
	now       func() time.Time
	conns     *conns
	ln        net.Listener
}

// New returns a console that already listens. cfg must be valid. Run closes what New
// has opened.
func New(cfg Config, deps Dependencies) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pages, err := page.Load()
	if err != nil {
		return nil, err
	}
	var feed *verdicts.Feed
	if cfg.Live {
		if feed, err = newFeed(&cfg, deps); err != nil {
			return nil, err
		}
	}
	token, err := ReadToken(cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("console-token-file: %w", err)
	}
	apps, err := readAppTokens(cfg.AppTokens)
	if err != nil {
		return nil, fmt.Errorf("console-app-tokens: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	rights, err := signin.ReadRights(cfg.AccessFile, deps.Logger, deps.Now)
	if err != nil {
		return nil, fmt.Errorf("console-access-file: %w", err)
	}
	var provider *signin.Provider
	hosts := cfg.Hosts
	if cfg.SignIn.Issuer != "" {
		if provider, err = signin.NewProvider(cfg.SignIn, token, rights, deps.Now); err != nil {
			return nil, err
		}
		hosts = append(hosts, cfg.SignIn.Host())
	}
	log, err := openNotes(&cfg, deps)
	if err != nil {
		return nil, err
	}
	conns, err := openConns(cfg)
	if err != nil {
		log.Close()
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		log.Close()
		return nil, errors.Join(fmt.Errorf("console-addr: %w", err), conns.Close())
	}
	c := &Console{
		cfg: cfg, log: deps.Logger, pages: pages, now: deps.Now, ln: ln, conns: conns,
		access:  newAccess(token, append(listenHosts(ln.Addr().String()), hosts...), cfg.ProxyPeers, cfg.ProxySecret.Reveal()),
		metrics: newMetrics(deps.Metrics), acknowledge: deps.Acknowledge,
		verdicts: feed, gateway: newGatewayClient(),
		writeNote: deps.WriteNote, notes: log, noteWait: 4 * time.Second,
	}
	if log != nil {
		c.writeNote, deps.Look = log.Write, log.Look
	}
	c.looks = &looks{log: c.log, now: c.now, write: deps.Look, lost: c.metrics.looksLost}
	c.access.apps, c.access.rights, c.access.provider = apps, rights, provider
	c.asker = newAsker(cfg, conns, c.access.pseudonym, c.looks.saw, c.metrics, c.now)
	return c, nil
}

// openNotes returns nil if the console takes no notes.
func openNotes(cfg *Config, deps Dependencies) (*note.Log, error) {
	if !cfg.Notes {
		return nil, nil
	}
	opts, err := cfg.Kafka.Options(deps.Logger, nil)
	if err != nil {
		return nil, err
	}
	return note.NewLog(opts, cfg.Kafka.Names())
}

// conns are the connections to ClickHouse.
type conns struct {
	all  driver.Conn
	apps map[string]driver.Conn // of the users of single apps; nil: all is for every app
}

func openConns(cfg Config) (*conns, error) {
	all, err := clickhouse.OpenViews(&cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	c := &conns{all: all}
	if cfg.AppUsers == "" {
		return c, nil
	}
	c.apps = map[string]driver.Conn{}
	entries, err := os.ReadDir(cfg.AppUsers)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // Kubernetes puts those beside the keys of a secret
			continue
		}
		own := cfg.ClickHouse
		own.User = cfg.ClickHouse.Database + "_console_" + e.Name() + "_user"
		if err = own.Password.Set("file:" + filepath.Join(cfg.AppUsers, e.Name())); err != nil {
			break
		}
		if c.apps[e.Name()], err = clickhouse.OpenViews(&own); err != nil {
			break
		}
	}
	if err == nil && len(c.apps) == 0 {
		err = errors.New("the folder holds no file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("console-app-users: %w", err), c.Close())
	}
	return c, nil
}

// Close closes all connections.
func (c *conns) Close() error {
	errs := []error{c.all.Close()}
	for _, conn := range c.apps {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// of returns the connection for questions about an app.
func (c *conns) of(app string) (driver.Conn, error) {
	if c.apps == nil {
		return c.all, nil
	}
	if conn := c.apps[app]; conn != nil {
		return conn, nil
	}
	return nil, &denial{fmt.Sprintf("The console has no user of ClickHouse for the app %q.", app), "console-app-users is the folder with the password of each app's user; it is read when the console starts."}
}

func newFeed(cfg *Config, deps Dependencies) (*verdicts.Feed, error) {
	opts, err := cfg.Kafka.Options(deps.Logger, nil)
	if err != nil {
		return nil, err
	}
	codec, err := cfg.Registry.Codec(context.Background())
	if err != nil {
		return nil, err
	}
	return verdicts.New(verdicts.Config{Options: opts, Names: cfg.Kafka.Names(), Codec: codec, Logger: deps.Logger, Now: deps.Now}), nil
}

// listenHosts are the values of Host that address a listener.
func listenHosts(addr string) []string {
	_, port, _ := net.SplitHostPort(addr) // it is a listener's
	return []string{addr, net.JoinHostPort("localhost", port), net.JoinHostPort("127.0.0.1", port)}
}

// URL is the address to open, with the token that grants access.
func (c *Console) URL() string {
	return "http://" + c.ln.Addr().String() + "/?token=" + c.access.token
}

const stopTimeout = 5 * time.Second

// Run serves until signals.Stop ends.
func (c *Console) Run(signals process.Signals) (err error) {
	defer func() { err = errors.Join(err, c.conns.Close()) }()
	defer c.notes.Close()
	streams, endStreams := context.WithCancel(signals.Stop)
	defer endStreams()
	server := &http.Server{
		Handler:           c.handler(streams),
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer endStreams()
	if c.verdicts != nil {
		reading.Go(func() { c.verdicts.Run(streams) })
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.ln) }() // ends with Shutdown or Close
	select {
	case err := <-served:
		return fmt.Errorf("console: %w", err)
	case <-signals.Stop.Done():
	}
	endStreams()
	ctx, cancel := context.WithTimeout(signals.Kill, stopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close() // readers of pages are cut off
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("console: %w", err)
	}
	return nil
}

// handler serves all paths of the console.
func (c *Console) handler(streams context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.StripPrefix("/static/", c.pages.Static()))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/overview", http.StatusFound) })
	for path, view := range map[string]view{
		"overview": c.overview, "usage": c.usage, "feature": c.feature, "accounts": c.accounts, "account": c.account, "person": c.person,
		"explore": c.explore, "live": c.live, "quality": c.quality, "alerts": c.alerts, "explain": c.explain, "health": c.health, "search": c.search, "question": c.questionPage, "annotations": c.annotations, "looks": c.looksPage, "boards": c.boards, "board": c.board,
	} {
		mux.HandleFunc("GET /"+path, c.serve(path, view))
	}
	mux.HandleFunc("GET /live/events", func(w http.ResponseWriter, r *http.Request) { c.stream(streams, w, r) })
	mux.HandleFunc("POST /live/test", c.sendTest)
	mux.HandleFunc("GET /api/v1/{question}", c.data)
	mux.HandleFunc("GET /api/v1/saved/{id}", c.savedData)
	mux.HandleFunc("GET "+reportPath, c.report)
	if c.access.provider != nil {
		mux.HandleFunc("GET "+signin.Path, c.begin)
		mux.HandleFunc("GET "+signin.CallbackPath, c.finish)
		mux.HandleFunc("POST "+signin.SignOutPath, c.signOut)
	}
	mux.HandleFunc("GET /feedback", c.feedbackPage)
	if c.acknowledge != nil {
		mux.HandleFunc("POST /feedback", c.feedback)
		mux.HandleFunc("POST /alerts/feedback", c.feedback)
	}
	if c.writeNote != nil {
		mux.HandleFunc("POST /annotations", c.annotate)
		mux.HandleFunc("POST "+annotatePath, c.annotateByProgram)
		mux.HandleFunc("POST /saved", c.save)
		mux.HandleFunc("POST /boards", c.saveBoard)
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, http.StatusNotFound, "There is no such page.", "Choose one from the menu above.")
	})
	return c.access.guard(c, mux)
}

// hasHost reports whether host is one of the console's names.
func hasHost(hosts []string, host string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}
