package ipam

import (
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// OwnerSort is what sort of thing holds an address.
type OwnerSort uint8

// The sorts of holders. A holder that is described in words that are not known here is
// OwnerOther: whether it still needs its address is not ours to tell.
const (
	OwnerOther   OwnerSort = iota
	OwnerPod               // a pod of Kubernetes
	OwnerMachine           // a virtual machine in a pod: it keeps its address without the pod
	OwnerTunnel            // a tunnel of a node
	OwnerWindows           // what Windows reserves of each block for itself
	OwnerService           // a service of type LoadBalancer
)

// Owner says in words who holds an address, as its attribute tells it.
type Owner struct {
	Sort      OwnerSort
	Handle    string // empty: none
	Node      string // empty: not said
	Namespace string // of a pod, virtual machine or service
	Name      string // of the pod or service; of a tunnel its type, such as ipipTunnelAddress
}

// WindowsHandle holds the addresses of each block that Windows keeps for itself.
const WindowsHandle = "windows-reserved-ipam-handle"

// OwnerFor tells who the attribute describes.
func OwnerFor(a model.Attribute) Owner {
	h := Owner{Handle: a.Handle, Node: a.Secondary["node"]}
	kind := a.Secondary["type"]
	switch {
	case a.Handle == WindowsHandle:
		h.Sort = OwnerWindows
		return h
	case strings.HasSuffix(kind, "TunnelAddress"):
		h.Sort, h.Name = OwnerTunnel, kind
		return h
	case kind == "loadBalancer":
		h.Sort, h.Namespace, h.Name = OwnerService, a.Secondary["namespace"], a.Secondary["service"]
		return h
	}
	h.Namespace, h.Name = a.Secondary["namespace"], a.Secondary["pod"]
	if h.Namespace == "" || h.Name == "" {
		return h
	}
	h.Sort = OwnerPod
	if len(a.AlternateOwner) > 0 {
		h.Sort = OwnerMachine
	}
	for key := range a.Secondary {
		switch key {
		case "namespace", "pod", "node", "timestamp":
		default:
			h.Sort = OwnerMachine
		}
	}
	return h
}

// String is the holder as messages name it, such as "pod default/web-0".
func (h Owner) String() string {
	switch h.Sort {
	case OwnerPod:
		return "pod " + h.Namespace + "/" + h.Name
	case OwnerMachine:
		return "virtual machine of pod " + h.Namespace + "/" + h.Name
	case OwnerTunnel:
		return strings.TrimSuffix(h.Name, "TunnelAddress") + " tunnel of node " + h.Node
	case OwnerWindows:
		return "Windows on node " + h.Node
	case OwnerService:
		return "service " + h.Namespace + "/" + h.Name
	}
	if h.Handle == "" {
		return "nobody that is named"
	}
	return "handle " + h.Handle
}
