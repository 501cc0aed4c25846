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
// those for Go are linked in; browsers' run in Chromium; calls that no SDK makes
// are made as the protocols' documentation writes them (rest_test.go).
//
// The SDKs for Python and Java (drivers/python, drivers/java) make their calls under the
// build tag languages, which CI does not give yet: go test -tags languages -run
// TestLanguages ./test/conformance. They are installed below .cache too.
//
// Without npm and Node the tests are skipped aloud; UPTAKE_REQUIRE_SDKS=1 makes
// that a failure. go test -update writes docs/sources/conformance.md and
// conformance-browsers.md from what was seen.
package conformance
