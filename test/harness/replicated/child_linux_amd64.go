package replicated

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/ebitengine/purego"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// childName is what package embedded calls its child.
const childName = "uptake-embedded-clickhouse"

// ChildMain changes the library of a server that was prepared, in the memory of
// this process, if this is the process of one. It has to be called before the
// ChildMain of package embedded, which loads the library that is loaded by then.
func ChildMain() {
	if os.Args[0] != childName {
		return
	}
	lib, err := os.ReadFile(libraryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return // it was not prepared
	}
	if err == nil {
		err = errors.Join(change(string(lib)), addQueries(os.Args))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare ClickHouse for replicated tables:", err)
		os.Exit(2)
	}
}

// addQueries puts queries before those that a server is started with.
func addQueries(args []string) error {
	queries, err := os.ReadFile(queriesFile)
	if err != nil {
		return err
	}
	for i, arg := range args {
		if then, ok := strings.CutPrefix(arg, "--query="); ok {
			args[i] = "--query=" + string(queries) + then
			return nil
		}
	}
	return errors.New("the server is started without queries")
}

// known is a function that the library of [embedded.PackageVersion] exports, and
// where: addresses below count from the library's beginning, as it does.
const (
	known   = "chdb_query_cmdline"
	knownAt = 0xf211700
)

// patch is bytes of the library and what they are replaced with.
type patch struct {
	what     string
	at       int64
	was, now []byte
}

// patches of that version, which is stripped: the first is the function that
// refers to the text "Parameter 'interserver_http(s)_port' required for
// replication".
func patches() []patch {
	return []patch{
		{
			what: "DB::Context::getInterserverIOAddress", at: 0x1417c9c0,
			was: []byte{
				0x41, 0x56, 0x53, 0x48, 0x83, 0xec, 0x48, // push r14; push rbx; sub rsp, 72
				0x4c, 0x8b, 0x36, // mov r14, [rsi]: the shared part of the context
				0x49, 0x0f, 0xbe, 0x8e, 0x67, 0x01, 0x00, 0x00, // movsx rcx, byte [r14+0x167]: length of the host
				0x48, 0x85, 0xc9, 0x49, 0x8b, 0x96, 0x58, 0x01, 0x00, 0x00, 0x48, 0x89, 0xc8, 0x48, 0x0f, 0x48, 0xc2, 0x48, 0x85, 0xc0,
				0x74, 0x54, // je: there is none
				0x41, 0x0f, 0xb7, 0x86, 0x68, 0x01, 0x00, 0x00, // movzx eax, word [r14+0x168]: the port
			},
			now: addressCode("127.0.0.1", 9009),
		},
		{what: "version()", at: 0x27ebfe2, was: []byte("26.7.2.1\x00"), now: []byte("26.7.3.9\x00")},
	}
}

// addressCode is a function that returns a std::pair<String, UInt16>, by the
// pointer in rdi. A string of at most 22 bytes lies in its 24 bytes itself, with
// its length in the last.
func addressCode(host string, port uint16) []byte {
	var text [24]byte
	text[23] = byte(copy(text[:22], host))
	code := []byte{0x48, 0x89, 0xf8} // mov rax, rdi
	for i := range 3 {
		code = append(code, 0x48, 0xb9) // mov rcx, imm64
		code = append(code, text[8*i:8*i+8]...)
		code = append(code, 0x48, 0x89, 0x4f, byte(8*i)) // mov [rdi+8i], rcx
	}
	code = append(code, 0x66, 0xc7, 0x47, 0x18) // mov word [rdi+24], imm16
	code = binary.LittleEndian.AppendUint16(code, port)
	return append(code, 0xc3) // ret
}

// change loads a library and changes it. It refuses any other than the one that
// the patches are of.
func change(lib string) error {
	handle, err := purego.Dlopen(lib, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", lib, err)
	}
	at, err := purego.Dlsym(handle, known)
	if err != nil {
		return fmt.Errorf("load %s: %w", lib, err)
	}
	// Through this file code can be written that the process itself may not write.
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	base := int64(at) - knownAt
	for _, p := range patches() {
		is := make([]byte, len(p.was))
		if _, err := mem.ReadAt(is, base+p.at); err != nil {
			return fmt.Errorf("read %s of %s: %w", p.what, lib, err)
		}
		if !bytes.Equal(is, p.was) {
			return fmt.Errorf("%s is not the libchdb.so of %s: %s is %x at %#x, want %x: find where it is in this one", lib, embedded.PackageVersion, p.what, is, p.at, p.was)
		}
		if _, err := mem.WriteAt(p.now, base+p.at); err != nil {
			return fmt.Errorf("change %s of %s: %w", p.what, lib, err)
		}
	}
	return nil
}
