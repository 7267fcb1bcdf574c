package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// maxName is the longest name of an object of the API, bytes.
const maxName = 253

// objectName is the name of the object of k in the API. The error says which part of k is
// missing or not allowed.
func objectName(k model.Key) (string, error) {
	switch k.Kind {
	case model.KindIPAMConfig:
		return "default", nil
	case model.KindIPAMBlock:
		cidr, err := prefixOf(k.Name)
		return dashed(cidr), err
	case model.KindBlockAffinity:
		sort, owner, cidr, err := affinityParts(k.Name)
		if err != nil {
			return "", err
		}
		_ = sort // as in Calico it is not in the name
		return affinityName(owner, dashed(cidr)), nil
	case model.KindIPAMHandle:
		if k.Name == "" {
			return "", errors.New("handle ID: missing")
		}
		return handleName(k.Name), nil
	}
	return k.Name, checkName("name", k.Name)
}

// prefixOf reads a CIDR as keys hold it: 10.0.0.0-26.
func prefixOf(name string) (netip.Prefix, error) {
	i := strings.LastIndexByte(name, '-')
	if i >= 0 {
		if p, err := netip.ParsePrefix(name[:i] + "/" + name[i+1:]); err == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("name %q: must hold a CIDR such as 10.0.0.0-26 or fd00::-122", name)
}

// affinityParts takes the name of an affinity's key apart: host/NODE/CIDR.
func affinityParts(name string) (sort, owner string, cidr netip.Prefix, err error) {
	i := strings.LastIndexByte(name, '/')
	sort, owner, ok := strings.Cut(name[:max(i, 0)], "/")
	if !ok || sort != "host" && sort != "virtual" || owner == "" || strings.Contains(owner, "/") {
		return "", "", netip.Prefix{}, fmt.Errorf("name %q: must be host/NODE/CIDR or virtual/NAME/CIDR", name)
	}
	cidr, err = prefixOf(name[i+1:])
	return sort, owner, cidr, err
}

// dashed is a CIDR as names of objects hold it: 10-0-0-0-26.
func dashed(cidr netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr.String())
}

// affinityName joins node and block; what would be too long ends in a hash, as in Calico.
func affinityName(owner, cidr string) string {
	name := owner + "-" + cidr
	if len(name) < maxName {
		return name
	}
	sum := sha256.Sum256([]byte(owner + "+" + cidr))
	return owner[:maxName-1-len(cidr)-13] + "-" + cidr + "-" + hex.EncodeToString(sum[:])[:11]
}

// isName matches what the API takes as a name (an RFC 1123 subdomain).
var isName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// notName matches what a name must not hold.
var notName = regexp.MustCompile(`[^a-z0-9]+`)

// handleName is the name of a handle: its ID in lower case, as in Calico, or where that
// is none that the API takes, what is left of it and a hash of it.
func handleName(id string) string {
	name := strings.ToLower(id)
	if len(name) <= maxName && isName.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(id))
	name = strings.Trim(notName.ReplaceAllString(name, "-"), "-")
	name = strings.TrimRight(name[:min(len(name), maxName-33)], "-")
	return strings.TrimLeft(name+"-"+hex.EncodeToString(sum[:16]), "-")
}

// checkName refuses names that a path can't hold.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s: missing", what)
	case strings.Contains(name, "/"):
		return fmt.Errorf("%s %q: must not contain '/'", what, name)
	case name == "." || name == ".." || strings.ContainsAny(name, "%\x00?#"):
		return fmt.Errorf("%s %q: must be a name that the API takes", what, name)
	}
	return nil
}
