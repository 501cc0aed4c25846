// Package conformance runs the real SDKs of every protocol against a gateway and
// holds what the log has afterwards against what the SDKs were told to send.
//
// The gateway runs in this process over kfake; before it stands a proxy that
// fails requests as networks and overload do: before they arrive, after they were
// stored, with an error of a load balancer or with the gateway's own. The SDKs
// for Node come from npm by the lock file here, into the repository's .cache, and
// run in Node processes (drivers/); those for Go are linked in.
//
// Without npm and Node the tests are skipped aloud; UPTAKE_REQUIRE_SDKS=1 makes
// that a failure. go test -update writes docs/sources/conformance.md from what
// was seen.
package conformance
