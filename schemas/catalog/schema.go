package catalog

import _ "embed"

// Schema is the JSON Schema of the YAML format, for editors. Parse does not use
// it, and knows more: what must be unique, and what must exist.
//
//go:embed catalog.schema.json
var Schema []byte
