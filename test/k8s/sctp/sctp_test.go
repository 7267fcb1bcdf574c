package sctp

import (
	"errors"
	"hash/maphash"
	"io"
	"os"
	"testing"
)

// An association carries messages both ways and ends in order, over each family.
func TestAssociation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("raw sockets need root")
	}
	for name, at := range map[string]string{"IPv4": "127.0.0.1:4711", "IPv6": "[::1]:4712"} {
		t.Run(name, func(t *testing.T) {
			addr, err := ResolveSCTPAddr("sctp", at)
			if err != nil {
				t.Fatal(err)
			}
			l, err := ListenSCTP("sctp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan error, 1)
			go func() {
				done <- func() error {
					c, err := l.AcceptSCTP()
					if err != nil {
						return err
					}
					buf := make([]byte, 100)
					n, err := c.Read(buf)
					if err != nil {
						return err
					}
					if _, err := c.Write(append([]byte("echo "), buf[:n]...)); err != nil {
						return err
					}
					return c.Close()
				}()
			}()
			c, err := DialSCTP("sctp", nil, addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != "echo hello" {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
			if _, err := c.Read(buf); !errors.Is(err, io.EOF) {
				t.Errorf("after the peer's end: %v, want EOF", err)
			}
			if err := errors.Join(c.Close(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// An INIT that comes again, as the answer was late, gets the same answer; another one, another.
func TestSameAnswer(t *testing.T) {
	e := &endpoint{secret: maphash.MakeSeed()}
	p, init := peer{"10.0.0.1", 40000}, keys{1, 2}
	if first, again := e.keysFor(p, init), e.keysFor(p, init); first != again || first.tag == 0 {
		t.Errorf("an INIT is answered with %v, then with %v, want the same, with a tag", first, again)
	}
	if first, other := e.keysFor(p, init), e.keysFor(p, keys{3, 2}); first == other {
		t.Errorf("two associations have the same keys %v", first)
	}
}
