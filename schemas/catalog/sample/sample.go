// Package sample holds a catalog to start from: that of MyPOS, a point of sale.
package sample

import _ "embed"

// MyPOS is the sample catalog in YAML.
//
//go:embed mypos.yaml
var MyPOS []byte
