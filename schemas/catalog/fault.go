package catalog

import "github.com/uptakehq/uptake/schemas/yamldoc"

// Fault is one fault of a catalog; without a line if it did not come from YAML.
type Fault = yamldoc.Fault

// Faults is the error of Parse and Decode: all faults at once.
type Faults = yamldoc.Faults
