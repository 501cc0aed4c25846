package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What ClickHouse may do with files, by the Landlock ABI that knows the right.
const (
	readAccess = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	allAccess1 = unix.LANDLOCK_ACCESS_FS_EXECUTE | readAccess | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	dataAccess1 = allAccess1 &^ (unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO)
	fileAccess = unix.LANDLOCK_ACCESS_FS_READ_FILE // of what a rule for a single file may have
)

// systemPaths are read by the library and by libc; what of them is missing is left
// out. Other processes' folders in /proc are not among them: their environment has
// secrets.
var systemPaths = []string{
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime",
	"/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat",
	"/proc/loadavg", "/proc/uptime", "/proc/sys/vm", "/proc/sys/kernel", "/proc/diskstats", "/proc/mounts", "/proc/filesystems",
	"/sys/fs/cgroup", "/sys/devices/system", "/sys/kernel/mm", "/sys/block", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
}

// confinement returns why a child cannot be confined on this machine, or nil.
func confinement() error {
	switch abi := landlockABI(); {
	case abi < 1:
		return errors.New("the kernel has no Landlock, so it can read the files of this user")
	case seccompArch == 0:
		return errors.New("no system call filter for " + runtime.GOARCH + ", so it can run programs")
	}
	return nil
}

func landlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// confine takes from the calling thread, which must be locked, and from every
// thread that it starts, what tables, functions and dictionaries could leave the
// database by: files outside the data directory, programs, and connections to
// anywhere. clickhouse-local, which the library is, would grant all of it: the
// function file() reads every file, and SOURCE(EXECUTABLE) runs every command.
// Threads of the Go runtime are not touched; they run none of ClickHouse.
func confine(dataDir, lib string) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confine ClickHouse: no new privileges: %w", err)
	}
	if err := confineFiles(dataDir, lib); err != nil {
		return fmt.Errorf("confine ClickHouse to its files: %w", err)
	}
	if err := filterCalls(); err != nil {
		return fmt.Errorf("confine ClickHouse's system calls: %w", err)
	}
	return nil
}

func confineFiles(dataDir, lib string) error {
	abi := landlockABI()
	if abi < 1 {
		return nil // the parent reports it
	}
	all, data := uint64(allAccess1), uint64(dataAccess1)
	if abi >= 2 {
		all, data = all|unix.LANDLOCK_ACCESS_FS_REFER, data|unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		all, data = all|unix.LANDLOCK_ACCESS_FS_TRUNCATE, data|unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: all}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(attr.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(fd))
	allow := func(path string, access uint64) error {
		f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer unix.Close(f)
		var st unix.Stat_t
		if err := unix.Fstat(f, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			access &= fileAccess | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
		}
		rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(f)}
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			return fmt.Errorf("%s: %w", path, errno)
		}
		return nil
	}
	var errs []error
	for _, name := range []string{"data", "log", "backups"} {
		errs = append(errs, allow(filepath.Join(dataDir, name), data))
	}
	errs = append(errs, allow(filepath.Join(dataDir, "config"), readAccess), allow(filepath.Dir(lib), readAccess))
	if to, err := filepath.EvalSymlinks(lib); err == nil { // of what cannot be read the loader says so
		errs = append(errs, allow(filepath.Dir(to), readAccess))
	}
	for _, path := range systemPaths {
		errs = append(errs, allow(path, readAccess))
	}
	errs = append(errs, allow("/dev/null", readAccess|unix.LANDLOCK_ACCESS_FS_WRITE_FILE))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// seccompArch is the audit architecture of this build, 0 if there is no filter.
var seccompArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// x32Bit marks calls of the x32 ABI, which has numbers of its own.
const x32Bit = 0x40000000

// filterCalls refuses to run programs, to connect, and to look into other
// processes. It does not need Landlock, and complements it where it is available.
func filterCalls() error {
	if seccompArch == 0 {
		return nil // the parent reports it
	}
	denied := []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CONNECT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	}
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		same = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		more = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
		// struct seccomp_data
		callNumber, architecture = 0, 4
	)
	// The last two instructions allow and refuse; jumps count from the next one.
	n := len(denied)
	prog := []unix.SockFilter{
		{Code: load, K: architecture},
		{Code: same, K: seccompArch, Jf: uint8(n + 3)},
		{Code: load, K: callNumber},
		{Code: more, K: x32Bit, Jt: uint8(n + 1)},
	}
	for i, call := range denied {
		prog = append(prog, unix.SockFilter{Code: same, K: call, Jt: uint8(n - i)})
	}
	prog = append(prog,
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)},
	)
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return errno
	}
	return nil
}

// childEnviron is what the child needs of this process's environment, without the
// secrets that it may hold.
func childEnviron() []string {
	var env []string
	for _, name := range []string{"HOME", "TMPDIR", "LD_LIBRARY_PATH", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
