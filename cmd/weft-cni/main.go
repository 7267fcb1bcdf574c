// Weft-cni is weft's CNI plugin. Installed as calico or weft-cni it attaches
// containers; as calico-ipam or weft-ipam it assigns addresses for the plugins of
// others. A runtime starts it; see the CNI specification for its input and
// output, and package cni for what it does.
//
// Environment, beside the CNI variables: WEFT_AGENT_SOCKET, the path of the node
// agent's socket; WEFT_CNI_QUEUE, the directory of DELs that wait for it;
// FELIX_INTERFACEPREFIX, whose first item starts the names of host interfaces;
// WEFT_MTU_FILE, where the agent leaves the MTU of pods.
package main

import (
	"fmt"
	"os"

	"github.com/weft-net/weft/internal/cni"
)

func main() {
	err := cni.Run(os.Args[0], cni.Options{
		Socket:       os.Getenv("WEFT_AGENT_SOCKET"),
		QueueDir:     os.Getenv("WEFT_CNI_QUEUE"),
		LinkPrefixes: os.Getenv("FELIX_INTERFACEPREFIX"),
		MTUFile:      os.Getenv("WEFT_MTU_FILE"),
		Environ:      os.Environ(),
		Stderr:       os.Stderr,
	})
	if err != nil {
		if printErr := err.Print(); printErr != nil {
			fmt.Fprintln(os.Stderr, "weft-cni: print error:", printErr)
		}
		os.Exit(1)
	}
}
