// Package examples holds topologies and manifests to start from. The quickstart
// is also part of the binary: it is the topology of a `weft lab` without a file.
package examples

import _ "embed"

// Quickstart is examples/quickstart.yaml.
//
//go:embed quickstart.yaml
var Quickstart []byte
