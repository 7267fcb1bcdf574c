package nft_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// unprivileged runs the test in a user namespace, where buffers cannot be forced larger,
// and reports whether the caller is in there.
func unprivileged(t *testing.T) bool {
	const inside = "WEFT_NFT_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	testenv.NeedRoot(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"=1")
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: id, GidMappings: id}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestLargeWithoutPrivilege: a large table goes in by parts, and is read back as wanted.
func TestLargeWithoutPrivilege(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	k := newKernel(t)
	n, stop := k.start(nft.Options{})
	n.Synced()
	d := plan.FilterDelta{V4: world()}
	n.Apply(d)
	k.wait(n)
	// Changes of a large table go in by parts as well.
	n.Apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: []plan.Chain{policyChain(3, 99)}}})
	n.Apply(d)
	k.wait(n)
	stop()
	next, _ := k.start(nft.Options{})
	next.Apply(d)
	next.Synced()
	k.wait(next)
	if s := next.State().Stats; s.Transactions != 0 {
		t.Errorf("read back: %d transactions of %d messages", s.Transactions, s.Messages)
	}
}
