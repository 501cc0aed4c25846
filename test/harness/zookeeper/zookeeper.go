// Package zookeeper starts an Apache ZooKeeper for tests, which serves ClickHouse
// where it wants a Keeper. Its jars come from Maven, pinned in pom.xml.
//
// It is one server on this machine. It can be killed, paused and started again on
// its data and address. Whoever starts it closes it; it dies with the test binary.
package zookeeper

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/test/harness/jvm"
)

// Version is the ZooKeeper that pom.xml pins.
const Version = "3.9.4"

// RequireEnv is the environment variable that, set to 1, makes tests fail that
// would be skipped where a tool is missing. Java and Maven are Kafka's, too.
const RequireEnv = "UPTAKE_REQUIRE_KAFKA"

// minJava is what ZooKeeper 3.9 asks for, by the names of later releases.
const minJava = 11

//go:embed pom.xml
var pom []byte

// Server is a ZooKeeper. Its methods are not for use by several goroutines.
type Server struct {
	java, jars string
	dir        string
	addr       string
	process    *jvm.Process
}

// Start starts a server that keeps its data and log in dir, and returns when it
// serves. Its error wraps jvm.ErrMissing when the machine lacks a tool.
func Start(ctx context.Context, dir string) (*Server, error) {
	s := &Server{dir: dir}
	var err error
	if s.java, err = jvm.Java(ctx, "ZooKeeper", minJava); err != nil {
		return nil, fmt.Errorf("start zookeeper: %w", err)
	}
	if s.jars, err = jvm.Jars(ctx, jvm.Set{Name: "zookeeper-" + Version, POM: pom, Jar: "zookeeper-" + Version + ".jar"}); err != nil {
		return nil, fmt.Errorf("start zookeeper: %w", err)
	}
	// A port can be taken between the moment it was free and ZooKeeper's bind.
	for attempt := 1; ; attempt++ {
		err := s.configure()
		if err == nil {
			err = s.Restart(ctx)
		}
		if err == nil {
			return s, nil
		}
		err = errors.Join(err, s.Close())
		if attempt == 3 || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

// Sessions live for 1 to 10 s, as the client asks. Nothing waits for the disk:
// what is killed here is a process and not the machine.
const properties = `dataDir=%s
clientPortAddress=127.0.0.1
clientPort=%d
tickTime=500
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
forceSync=no
preAllocSize=1024
`

func (s *Server) configure() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start zookeeper: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	s.addr = l.Addr().String()
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("start zookeeper: %w", err)
	}
	if err := os.WriteFile(s.config(), fmt.Appendf(nil, properties, data, port), 0o644); err != nil {
		return fmt.Errorf("start zookeeper: %w", err)
	}
	return nil
}

func (s *Server) config() string { return filepath.Join(s.dir, "zoo.cfg") }
func (s *Server) output() string { return filepath.Join(s.dir, "zookeeper.log") }

// Addr is host:port; it stays over restarts.
func (s *Server) Addr() string { return s.addr }

// Restart starts a server that was killed, on its data and address, and returns
// when it serves.
func (s *Server) Restart(ctx context.Context) error {
	cmd := exec.Command(s.java, "-Xmx256m", "-Xms32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true",
		"-cp", filepath.Join(s.jars, "*"), "org.apache.zookeeper.server.ZooKeeperServerMain", s.config())
	cmd.Dir = s.dir
	var err error
	if s.process, err = jvm.Start(cmd, s.output()); err != nil {
		return fmt.Errorf("start zookeeper: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.healthy()
		if err == nil {
			return nil
		}
		select {
		case <-s.process.Exited():
			text, _ := os.ReadFile(s.output()) // or there is nothing to show
			return fmt.Errorf("zookeeper has ended: %s", text[max(0, len(text)-3000):])
		case <-ctx.Done():
			return fmt.Errorf("wait for zookeeper: %w (last: %w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// healthy asks with srvr: ruok is answered with imok before the log is read, while
// sessions are still refused, and a ClickHouse that starts then takes every part
// on its disk for one that the Keeper knows.
func (s *Server) healthy() error {
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(answer), "Mode: standalone") {
		err = fmt.Errorf("it answers %q", answer)
	}
	return err
}

// Kill ends it with SIGKILL and waits for that.
func (s *Server) Kill() {
	_ = s.process.Signal(syscall.SIGKILL) // or it has ended
	<-s.process.Exited()
}

// Pause stops it where it is (SIGSTOP). Its connections stay open; sessions do
// not end before it goes on.
func (s *Server) Pause() error { return s.process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (s *Server) Resume() error { return s.process.Signal(syscall.SIGCONT) }

// Close kills it. Its data stays in the directory that it was given.
func (s *Server) Close() error {
	if s.process != nil {
		s.Kill()
	}
	return nil
}
