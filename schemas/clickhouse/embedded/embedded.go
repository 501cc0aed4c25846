// Package embedded runs a real ClickHouse on this machine without a server
// package, a container or cgo: for trying Uptake out, and for tests.
//
// ClickHouse comes as a shared library, libchdb.so, from the npm package
// @chdb/lib-linux-x64-gnu ([PackageVersion]). A child process loads it: this
// very executable, started again, which is why main and TestMain have to call
// [ChildMain] first. The child speaks the real native and HTTP protocols, so
// that clickhouse-go, clickhouse-client, curl and the /play page work against it
// as against any server.
//
// The package owns the child process, its configuration and its data
// directory while it runs. Whoever calls [Start] calls [Server.Stop] (or
// [Server.Kill]); whoever calls [Keep], which starts the server again when it
// ends by itself, calls [Kept.Close]. The child ends in good order when its
// parent dies.
//
// # What it is not
//
// It is one process on one machine, for loopback. Without [Access] there is one user, default,
// without a password: any program of the machine that can reach the ports can read and write
// the tables. More than that nobody can: on Linux the child gives up all files but its data,
// all programs and all connections before it loads the library (confine), since
// clickhouse-local would grant them to anyone who may make a dictionary, or call the function
// file. A page in a browser gets nowhere by its Origin, and not by a name that leads here
// either (ownHost).
//
// The version is 26.7.2.1. It can read out of bounds when a materialized view
// that changes the number of rows feeds a partitioned table while
// deduplication is on (ClickHouse #112649; fixed in 26.5.7.20, 26.6.3.19 and
// 26.7.3.9). On it, therefore, no table that a view feeds may have a PARTITION
// BY. A login that fails on the native port ends it (an exception that nobody
// catches), which [Keep] answers with a new start. CREATE USER has no place to store users in this form, and there are no
// system.*_log tables.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"
)

// Config says where a server keeps its data and where it listens.
type Config struct {
	// DataDir holds tables, logs and the generated configuration. It is made
	// when it is missing. One server at a time uses it.
	DataDir string
	// NativeAddr and HTTPAddr are host:port; port 0 picks a free one, an
	// empty host is 127.0.0.1. Both must name the same host, since ClickHouse
	// listens on the same hosts with all its ports. Default 127.0.0.1:0.
	NativeAddr string
	HTTPAddr   string
	// Access closes it to connections without a password. Nil: everybody who reaches its
	// ports is the user default, who may read and write the tables.
	Access *Access
	// Remote lets it listen beyond the loopback, where everybody who reaches it
	// reads and writes the tables.
	Remote bool
	// LibraryPath names libchdb.so. Empty: see [Library].
	LibraryPath string
	// MemoryBytes bounds what the server allocates for queries and merges
	// together; a query that would go beyond it fails. Default 4 GiB.
	MemoryBytes int64
	// Fsync makes each insert reach the disk before it is acknowledged, so
	// that it survives a power cut and not only the death of the process.
	Fsync bool
	// Unconfined leaves the child all files, programs and connections that this
	// process has. It is for tests that give ClickHouse a Keeper or another library.
	Unconfined bool
	// StartTimeout bounds the wait for the ports to answer, after the library
	// was found. Default 60 s.
	StartTimeout time.Duration
	// MaxRestarts bounds how often in a row [Keep] starts the server again.
	// Default 10, which takes at least 30 s.
	MaxRestarts int
	// Logger gets start and end of the server. Default slog.Default().
	Logger *slog.Logger
	// Progress gets the lines of a download, if one is needed. Default: none.
	Progress io.Writer
}

// Access says who may do what. The users are written when the server starts.
type Access struct {
	// Owner and Password are for those who make, write and read the tables, on
	// both ports.
	Owner, Password string
	// ConsolePassword is that of [Access.Console], who may read Database.
	ConsolePassword string
	// Database is what people read. The user [Access.Definer] may read it and
	// Database_internal, and cannot connect: views run as that user.
	Database string
	// Reader lets a request over HTTP without the headers by which one logs in, and
	// the user uptake_reader without a password on the native port, SELECT from
	// Database, within bounds of time, memory and threads, and nothing else. (The
	// function file, which ClickHouse grants to all here, reads the server's own
	// folders and no other: stored columns, and the hash of Password.)
	Reader bool
}

// Console is the user of a program that reads.
func (a *Access) Console() string { return consoleUser }

// Definer is the user that views are made to run as.
func (a *Access) Definer() string { return definerUser }

var accessName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (a *Access) validate() error {
	var errs []error
	for _, f := range [][2]string{{"Owner", a.Owner}, {"Database", a.Database}} {
		if !accessName.MatchString(f[1]) {
			errs = append(errs, fmt.Errorf("access: %s must be lower-case letters, digits and underscores (got %q)", f[0], f[1]))
		}
	}
	if a.Owner == "default" || a.Owner == definerUser || a.Owner == readerUser || a.Owner == consoleUser {
		errs = append(errs, fmt.Errorf("access: Owner must not be %s", a.Owner))
	}
	if a.Password == "" || a.ConsolePassword == "" {
		errs = append(errs, errors.New("access: Password and ConsolePassword must not be empty"))
	}
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	if c.NativeAddr == "" {
		c.NativeAddr = "127.0.0.1:0"
	}
	if c.HTTPAddr == "" {
		c.HTTPAddr = "127.0.0.1:0"
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 4 << 30
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 60 * time.Second
	}
	if c.MaxRestarts == 0 {
		c.MaxRestarts = 10
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// Validate reports all faults of c at once, each with the name of its field.
func (c *Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("DataDir must name a directory"))
	}
	hosts := map[string]string{}
	for _, a := range []struct{ name, addr string }{{"NativeAddr", c.NativeAddr}, {"HTTPAddr", c.HTTPAddr}} {
		if a.addr == "" {
			continue
		}
		host, port, err := splitAddr(a.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.name, err))
			continue
		}
		hosts[a.name] = host
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !c.Remote {
			errs = append(errs, fmt.Errorf("%s must be on the loopback unless Remote is set: whoever reaches it reads and writes the tables (got %q)", a.name, a.addr))
		}
		if other, ok := hosts["NativeAddr"]; ok && other != host {
			errs = append(errs, fmt.Errorf("HTTPAddr must have the host of NativeAddr (%s, got %s)", other, host))
		}
		if a.name == "HTTPAddr" && port != 0 && c.NativeAddr == a.addr {
			errs = append(errs, fmt.Errorf("HTTPAddr must differ from NativeAddr (both %s)", a.addr))
		}
	}
	if c.Access != nil {
		errs = append(errs, c.Access.validate())
	}
	if c.MemoryBytes < 0 || (c.MemoryBytes > 0 && c.MemoryBytes < 256<<20) {
		errs = append(errs, fmt.Errorf("MemoryBytes must be at least 256 MiB (got %d)", c.MemoryBytes))
	}
	if c.StartTimeout < 0 {
		errs = append(errs, fmt.Errorf("StartTimeout must be > 0 (got %s)", c.StartTimeout))
	}
	if c.MaxRestarts < 0 {
		errs = append(errs, fmt.Errorf("MaxRestarts must be > 0 (got %d)", c.MaxRestarts))
	}
	return errors.Join(errs...)
}

// AddrInUseError says which of the two addresses another process holds.
type AddrInUseError struct {
	Setting string // "NativeAddr" or "HTTPAddr"
	Addr    string
	Err     error
}

func (e *AddrInUseError) Error() string {
	return fmt.Sprintf("%s %s is in use by another process: %v", e.Setting, e.Addr, e.Err)
}

func (e *AddrInUseError) Unwrap() error { return e.Err }

// Server is a running ClickHouse.
type Server struct {
	cfg        Config
	nativeAddr string
	httpAddr   string
	version    string
	instance   string

	cmd       *exec.Cmd
	stdin     io.Closer
	closeOnce sync.Once

	done    chan struct{} // closed after the child was waited for
	waitErr error         // valid after done
}

// Start starts a server and returns once both ports answer. The server
// outlives ctx, which bounds the start only.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if os.Getenv(childEnv) != "" {
		// Without this check a program that forgot ChildMain would start
		// itself forever.
		return nil, errors.New("start embedded ClickHouse: main must call embedded.ChildMain before anything else")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start embedded ClickHouse: %w", err)
	}
	cfg.setDefaults()
	lib, err := findLibrary(ctx, cfg.LibraryPath, cfg.Progress)
	if err != nil {
		return nil, fmt.Errorf("start embedded ClickHouse: %w", err)
	}
	cfg.DataDir, err = filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start embedded ClickHouse: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	if err := AwaitFree(ctx, cfg.DataDir); err != nil {
		return nil, fmt.Errorf("start embedded ClickHouse: %w", err)
	}

	// A port that was free when it was picked can be taken before ClickHouse
	// binds it. Then another one is picked; a port that the caller named is
	// not replaced.
	for attempt := 1; ; attempt++ {
		s, err := start(ctx, cfg, lib)
		if err == nil {
			if why := confinement(); why != nil && !cfg.Unconfined {
				cfg.Logger.Warn("embedded clickhouse is not confined: whoever reaches its ports may leave the database", "reason", why)
			}
			cfg.Logger.Info("embedded clickhouse started", "native_addr", s.nativeAddr, "http_addr", s.httpAddr,
				"version", s.version, "pid", s.Pid(), "data_dir", cfg.DataDir)
			return s, nil
		}
		if attempt < 5 && errors.Is(err, errPickedPortTaken) {
			continue
		}
		return nil, fmt.Errorf("start embedded ClickHouse in %s: %w", cfg.DataDir, err)
	}
}

// AwaitFree waits until no server uses a data directory. The server of a parent
// that was killed ends by itself, which can take it some seconds; until then it
// holds its ports too. Start calls this.
func AwaitFree(ctx context.Context, dataDir string) error {
	if err := awaitUnlocked(ctx, filepath.Join(dataDir, "data", "status")); err != nil {
		return fmt.Errorf("data directory %s is in use: %w", dataDir, err)
	}
	return nil
}

var errPickedPortTaken = errors.New("a port that was free has been taken")

func start(ctx context.Context, cfg Config, lib string) (*Server, error) {
	s := &Server{cfg: cfg, instance: "uptake-" + uuid.NewString(), done: make(chan struct{})}
	var err error
	if s.nativeAddr, err = reserve("NativeAddr", cfg.NativeAddr); err != nil {
		return nil, err
	}
	if s.httpAddr, err = reserve("HTTPAddr", cfg.HTTPAddr); err != nil {
		return nil, err
	}
	args, err := writeConfig(cfg, s.nativeAddr, s.httpAddr, s.instance)
	if err != nil {
		return nil, err
	}
	if err := s.spawn(lib, args); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		// The child writes why it ended just before it does; wait for that.
		s.Kill()
		tail := s.logTail()
		if strings.Contains(tail, "Address already in use") && (picks(cfg.NativeAddr) || picks(cfg.HTTPAddr)) {
			err = errPickedPortTaken
		}
		return nil, fmt.Errorf("%w; end of its log:\n%s", err, tail)
	}
	return s, nil
}

// spawn starts the child. One goroutine starts it and waits for it, on one
// thread: the kernel sends the parent-death signal when the *thread* that
// forked ends, not when the process does.
func (s *Server) spawn(lib string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	out, err := os.Create(filepath.Join(s.cfg.DataDir, "log", "child.log"))
	if err != nil {
		return fmt.Errorf("create log of child: %w", err)
	}
	defer out.Close()
	s.cmd = exec.Command(exe)
	s.cmd.Args = append([]string{"uptake-embedded-clickhouse"}, args...)
	// TZ is the time zone of the server; its timezone setting has no effect here.
	env := os.Environ()
	if !s.cfg.Unconfined {
		env = append(childEnviron(), confineEnv+"=1")
	}
	s.cmd.Env = append(env, "TZ=UTC", childEnv+"="+lib, parentEnv+"="+strconv.Itoa(os.Getpid()))
	s.cmd.Dir = s.cfg.DataDir
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = childAttr()
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("open stdin of child: %w", err)
	}
	s.stdin = stdin

	started := make(chan error)
	go func() { // ends with the child; Stop and Kill wait for done
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		s.waitErr = s.cmd.Wait()
		close(s.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start child %s: %w", exe, err)
	}
	return nil
}

// awaitReady returns when both ports answer with the name that this very
// child was given: something else could have taken a port in the meantime.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = s.probe(ctx); last == nil {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("child ended: %w", s.Err())
		case <-ctx.Done():
			return fmt.Errorf("wait for its ports: %w (last answer: %w)", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	got, err := s.Query(ctx, "SELECT displayName()")
	if err != nil {
		return err
	}
	if strings.TrimSpace(got) != s.instance {
		return fmt.Errorf("another ClickHouse answers on %s", s.httpAddr)
	}
	auth := clickhouse.Auth{}
	if a := s.cfg.Access; a != nil {
		auth.Username, auth.Password = a.Owner, a.Password
	}
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{s.nativeAddr}, Auth: auth, DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", s.nativeAddr, err)
	}
	defer conn.Close()
	v, err := conn.ServerVersion()
	if err != nil {
		return fmt.Errorf("native handshake with %s: %w", s.nativeAddr, err)
	}
	if v.DisplayName != s.instance {
		return fmt.Errorf("another ClickHouse answers on %s", s.nativeAddr)
	}
	version, err := s.Query(ctx, "SELECT version()")
	s.version = strings.TrimSpace(version)
	return err
}

// Query runs one statement over HTTP and returns the body of the answer, in
// TSV unless the statement names a format. It is for setting up and looking;
// programs use a driver on NativeAddr. With Access it asks as the owner.
func (s *Server) Query(ctx context.Context, statement string) (string, error) {
	return query(ctx, s.httpAddr, s.cfg.Access, statement)
}

func query(ctx context.Context, addr string, access *Access, statement string) (string, error) {
	u := url.URL{Scheme: "http", Host: addr, Path: "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(statement))
	if err != nil {
		return "", fmt.Errorf("query %s: %w", addr, err)
	}
	req.Close = true
	if access != nil {
		req.Header.Set("X-ClickHouse-User", access.Owner)
		req.Header.Set("X-ClickHouse-Key", access.Password)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("query: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("query %s: %w", addr, err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("query %s: status %d: %s", addr, res.StatusCode, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// NativeAddr is host:port of the native protocol.
func (s *Server) NativeAddr() string { return s.nativeAddr }

// HTTPAddr is host:port of the HTTP interface.
func (s *Server) HTTPAddr() string { return s.httpAddr }

// Version is what version() answered, such as 26.7.2.1.
func (s *Server) Version() string { return s.version }

// Pid is the process id of the child.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Done is closed when the child has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says how the child ended; nil while it runs and after a good end.
func (s *Server) Err() error {
	if !s.ended() {
		return nil
	}
	return s.waitErr
}

func (s *Server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Stop ends the server in good order: running queries are cancelled, tables
// closed. When ctx ends first the child is killed, and the error reports that.
func (s *Server) Stop(ctx context.Context) error {
	s.closeStdin()
	select {
	case <-s.done:
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("stop embedded ClickHouse (pid %d): killed: %w", s.Pid(), context.Cause(ctx))
	}
	if s.waitErr != nil {
		return fmt.Errorf("stop embedded ClickHouse (pid %d): %w; end of its log:\n%s", s.Pid(), s.waitErr, s.logTail())
	}
	s.cfg.Logger.Info("embedded clickhouse stopped", "pid", s.Pid())
	return nil
}

// Kill ends the child with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL) // fails only when it has ended
	<-s.done
	s.closeStdin()
}

func (s *Server) closeStdin() {
	s.closeOnce.Do(func() { _ = s.stdin.Close() })
}

// logTail returns the end of what the child and ClickHouse in it wrote.
func (s *Server) logTail() string {
	var b strings.Builder
	for _, name := range []string{"clickhouse.log", "child.log"} {
		text, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "log", name))
		if err != nil {
			continue
		}
		if len(text) > 4096 {
			text = text[len(text)-4096:]
		}
		if t := strings.TrimSpace(string(text)); t != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, t)
		}
	}
	return strings.TrimSpace(b.String())
}

func splitAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("must be host:port: %w", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port must be a number up to 65535 (got %q)", p)
	}
	return host, port, nil
}

func picks(addr string) bool {
	_, port, err := splitAddr(addr)
	return err == nil && port == 0
}

// reserve binds addr for a moment: it turns port 0 into a free port, and finds
// out whether a named one is taken.
func reserve(setting, addr string) (string, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", &AddrInUseError{Setting: setting, Addr: addr, Err: err}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	defer l.Close()
	return net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}
