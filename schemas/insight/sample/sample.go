// Package sample holds definitions to start from: those of MyPOS, a point of sale.
package sample

import _ "embed"

// MyPOS is the sample file in YAML, for the sample catalog.
//
//go:embed mypos.yaml
var MyPOS []byte
