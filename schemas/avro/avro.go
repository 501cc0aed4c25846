// Package avro holds the Avro schemas of the records that the services
// exchange, as embedded files. A published version is never edited: fields are
// added, with defaults, in a new file of the next minor version, and anything
// else is a new topic major.
package avro

import "embed"

// Files holds every *.avsc file, named <record>.v<version>.avsc.
//
//go:embed *.avsc
var Files embed.FS
