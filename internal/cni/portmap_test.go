package cni_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// TestHostPorts: the plugin portmap, chained behind ours, leads a port of the node to the
// pod, and is taken out before ours is.
func TestHostPorts(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "iptables")
	n := newNode(t)
	outside := testenv.Netns(t)
	testenv.Veth(t, n.ns, "eth0", []string{"192.0.2.1/24"}, outside, "eth0", []string{"192.0.2.2/24"})
	testenv.Forward(t, n.ns)
	p := n.pod("web-0")
	const ports = `runtimeConfig={"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`
	ours := with(plainConf, ports)
	result := n.mustRun("calico", "ADD", ours, p)
	ip(t, n.ns, "route", "add", "10.65.0.1/32", "dev", "cali0d7763386da")
	portmap := func(verb string) {
		t.Helper()
		conf := with(`{"name":"k8s-pod-network","cniVersion":"1.0.0","type":"portmap","snat":true,"capabilities":{"portMappings":true}}`, ports, "prevResult="+result)
		cmd := n.command("portmap", conf, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND="+verb, "CNI_CONTAINERID="+p.container,
			"CNI_NETNS="+p.path, "CNI_IFNAME=eth0", "CNI_ARGS="+p.args, "CNI_PATH="+n.bin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := n.ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			if strings.Contains(out.String(), "iptables") {
				testenv.Skip(t, "iptables does not work here: %s", &out)
			}
			t.Fatalf("portmap %s: %v: %s", verb, err, &out)
		}
	}
	portmap("ADD")
	var l net.Listener
	p.ns.MustDo(func() (err error) { l, err = net.Listen("tcp", ":80"); return err })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	connect := func() error {
		return outside.Do(func() error {
			c, err := net.DialTimeout("tcp", "192.0.2.1:8080", testenv.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(testenv.Patience))
			_, err = io.ReadFull(c, make([]byte, 5))
			return err
		})
	}
	if err := connect(); err != nil {
		t.Errorf("the host port: %v", err)
	}
	if asked := n.agent.asked(p.container); len(asked.Endpoint.Ports) != 1 || asked.Endpoint.Ports[0].HostPort != 8080 {
		t.Errorf("the agent was told of %+v", asked.Endpoint.Ports)
	}
	portmap("DEL")
	n.mustRun("calico", "DEL", ours, p)
	if err := connect(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after DEL: %v", err)
	}
}
