package testenv

import (
	"os"
	"testing"
)

// VM skips the test unless it runs in the virtual machine with a full kernel that
// package test/vm boots: there everything is that the kernel of a test machine may lack
// (ipip, wireguard, vrf, dummy). It is no loss that has to be told: test/vm runs every
// test of the packages that it lists whose name begins with TestVM, and fails with it.
func VM(t testing.TB) {
	t.Helper()
	if !InVM() {
		t.Skip("runs in the virtual machine of test/vm")
	}
	NeedRoot(t)
}

// InVM reports whether this is that machine, which is emulated: times are many times as
// long there.
func InVM() bool { return os.Getenv("WEFT_VM") != "" }
