// Package conformance runs the real SDKs of every protocol against the whole path
// and holds what ClickHouse has afterwards against what the SDKs were told to
// send: no row missing, none twice, every field in its column, nothing else there
// or put aside.
//
// Gateway, enricher and rollup-writer are the binaries that ship, over kfake and
// the embedded ClickHouse; one stack serves all tests, with an app for each
// scenario. Before the gateway stands a proxy that fails requests as networks and
// overload do: before they arrive, after they were stored, with an error of a load
// balancer or with the gateway's own. The SDKs for Node come from npm by the lock
// file here, into the repository's .cache, and run in Node processes (drivers/);
// those for Go are a program of a module of its own (drivers/go), so that their
// requirements do not choose the services' versions; browsers' run in Chromium; calls
// that no SDK makes are made as the protocols' documentation writes them
// (rest_test.go). The SDKs for Python, Java and Rust (drivers/python, drivers/java,
// drivers/rust) are installed below .cache as well; they make their calls and meet no
// faults.
//
// What runs when: `make test` runs Node's and Go's SDKs; `make test-long` and CI also
// the browsers'; `make sdks` all of them, Python's, Java's and Rust's too, of which
// Rust's compilation takes five minutes of CPU. UPTAKE_SDKS=Java (or Python,Rust, or all)
// chooses among the languages, also where one registry cannot be reached.
//
// Without the tools of a language its tests are skipped with the reason;
// UPTAKE_REQUIRE_SDKS=1 makes that a failure. go test -update writes
// docs/sources/conformance.md, conformance-browsers.md and conformance-languages.md
// from what was seen, and the section on SDKs of each source's page.
package conformance
