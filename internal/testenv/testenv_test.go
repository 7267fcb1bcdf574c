package testenv_test

import (
	"net"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

func TestNamespacesAreApart(t *testing.T) {
	t.Parallel()
	a, b := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, a, "to-b", []string{"10.9.0.1/24", "fd09::1/64"}, b, "to-a", []string{"10.9.0.2/24", "fd09::2/64"})
	for _, network := range []string{"10.9.0.2:0", "[fd09::2]:0"} {
		var l net.Listener
		b.MustDo(func() (err error) { l, err = net.Listen("tcp", network); return err })
		defer l.Close()
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%v can be reached from outside of the namespace", l.Addr())
		}
		a.MustDo(func() error {
			c, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				c.Close()
			}
			return err
		})
	}
}
