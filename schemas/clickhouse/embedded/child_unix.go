//go:build linux || darwin

package embedded

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/ebitengine/purego"
)

// childEnv marks the child; its value is the path of the library. parentEnv
// holds the parent's process id; confineEnv says that the child confines itself.
const (
	confineEnv = "UPTAKE_EMBEDDED_CLICKHOUSE_CONFINE"
	childEnv   = "UPTAKE_EMBEDDED_CLICKHOUSE_LIBRARY"
	parentEnv  = "UPTAKE_EMBEDDED_CLICKHOUSE_PARENT"
)

// orphanTimeout bounds the ordered end of a child whose parent died.
const orphanTimeout = 20 * time.Second

// ChildMain turns this process into the ClickHouse server if Start started it
// for that, and then does not return. In every other process it returns at
// once. It has to be the first call in main, or in TestMain.
func ChildMain() {
	lib := os.Getenv(childEnv)
	if lib == "" {
		return
	}
	parent, err := strconv.Atoi(os.Getenv(parentEnv))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", parentEnv, err)
		os.Exit(2)
	}
	go watchSignals(parent) // ends with the process
	if err := serve(lib, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// watchSignals leaves the end of the child to its parent: a SIGTERM that a
// supervisor sends to every process of a service, or a Ctrl-C, must not take
// ClickHouse away from the writer that is still flushing into it. When the
// parent is dead (childAttr then has the kernel send SIGTERM), the pipe is
// closed and ClickHouse is ending; it gets orphanTimeout for that.
func watchSignals(parent int) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for range signals {
		if os.Getppid() != parent {
			time.Sleep(orphanTimeout)
			os.Exit(1)
		}
	}
}

// serve loads the library and runs clickhouse-local's command line in it until
// standard input ends. args[0] is a program name.
func serve(lib string, args []string) error {
	runtime.LockOSThread()
	syscall.Umask(0o077) // tables and backups hold personal data
	if os.Getenv(confineEnv) != "" {
		dir, err := os.Getwd() // the data directory, see spawn
		if err == nil {
			err = confine(dir, lib)
		}
		if err != nil {
			return err
		}
	}
	handle, err := purego.Dlopen(lib, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", lib, err)
	}
	var (
		// chdb_result *chdb_query_cmdline(int argc, char **argv)
		queryCmdline func(argc int32, argv **byte) uintptr
		// const char *chdb_result_error(chdb_result *result), NULL if none
		resultError func(result uintptr) string
		// void chdb_set_signal_handlers_enabled(int enabled)
		setSignalHandlers func(enabled int32)
	)
	for name, fn := range map[string]any{
		"chdb_query_cmdline":               &queryCmdline,
		"chdb_result_error":                &resultError,
		"chdb_set_signal_handlers_enabled": &setSignalHandlers,
	} {
		sym, err := purego.Dlsym(handle, name)
		if err != nil {
			return fmt.Errorf("load %s: %w", lib, err)
		}
		purego.RegisterFunc(fn, sym)
	}
	// With its own handlers a crash hangs for minutes before the process ends;
	// without them the parent sees the end at once.
	setSignalHandlers(0)

	argv := make([]*byte, len(args)+1) // ends with NULL, as C expects
	for i, arg := range args {
		argv[i] = &append([]byte(arg), 0)[0]
	}
	result := queryCmdline(int32(len(args)), &argv[0])
	runtime.KeepAlive(argv)
	if result == 0 {
		return fmt.Errorf("%s returned no result", lib)
	}
	if text := resultError(result); text != "" {
		return fmt.Errorf("ClickHouse: %s", text)
	}
	return nil
}
