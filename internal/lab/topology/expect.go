package topology

import (
	"errors"
	"fmt"
	"strings"
)

// checkExpectations resolves every reference and fills in the time.
func (t *Topology) checkExpectations() error {
	for i := range t.Expect {
		e := &t.Expect[i]
		if e.Within == 0 {
			e.Within = DefaultWithin
		}
		path := fmt.Sprintf("expect[%d]", i)
		kinds := 0
		for name, pair := range map[string]*Pair{"reachable": e.Reachable, "unreachable": e.Unreachable} {
			if pair == nil {
				continue
			}
			kinds++
			if err := t.checkPair(path+"."+name, pair, name == "reachable"); err != nil {
				return err
			}
		}
		for name, line := range map[string]*RouteLine{"route": e.Route, "noRoute": e.NoRoute} {
			if line == nil {
				continue
			}
			kinds++
			if err := t.checkRefs(path+"."+name+".at", line.At, false); err != nil {
				return err
			}
			if _, err := Matcher(line.Line); err != nil {
				return fmt.Errorf("%s.%s.line: %w", path, name, err)
			}
		}
		if e.MTU != nil {
			kinds++
			if err := t.checkLargest(path+".mtu", e.MTU); err != nil {
				return err
			}
		}
		if kinds != 1 {
			return fmt.Errorf("%s: must have exactly one of reachable, unreachable, route, noRoute, mtu", path)
		}
		if e.By != "" && e.Reachable == nil && e.Unreachable == nil {
			return fmt.Errorf("%s.by: %q: goes with reachable or unreachable only", path, e.By)
		}
	}
	return nil
}

// checkPair resolves the references of a pair and completes it. Only what answers can
// be looked at on its way.
func (t *Topology) checkPair(path string, p *Pair, answers bool) error {
	if err := errors.Join(t.checkRefs(path+".from", p.From, false), t.checkRefs(path+".to", p.To, true)); err != nil {
		return firstLine(err)
	}
	if err := p.fillProtocol(path); err != nil {
		return err
	}
	switch {
	case p.Carried != "" && !answers:
		return fmt.Errorf("%s.carried: %q: goes with reachable only", path, p.Carried)
	case p.Source != "" && !answers:
		return fmt.Errorf("%s.source: %q: goes with reachable only", path, p.Source)
	}
	switch p.Carried {
	case "", CarriedPlain, CarriedIPIP, CarriedVXLAN, CarriedWireGuard:
	default:
		return fmt.Errorf("%s.carried: %q: must be %s, %s, %s or %s", path, p.Carried, CarriedPlain, CarriedIPIP, CarriedVXLAN, CarriedWireGuard)
	}
	if p.Source != "" && p.Source != SourceOwn && p.Source != SourceNode {
		if _, err := t.Target(p.Source); err != nil {
			return fmt.Errorf("%s.source: %q: must be %s, %s, an address, or one of %s", path, p.Source, SourceOwn, SourceNode, t.targetForms())
		}
	}
	return nil
}

// checkLargest resolves the references of a size.
func (t *Topology) checkLargest(path string, l *Largest) error {
	if err := errors.Join(t.checkRefs(path+".from", l.From, false), t.checkRefs(path+".to", l.To, true)); err != nil {
		return firstLine(err)
	}
	// Less has no room for the headers of an echo request, and of IPv6 no network.
	if l.Bytes < leastMTU || l.Bytes == 1<<16-1 {
		return fmt.Errorf("%s.bytes: %d: must be %d to 65534", path, l.Bytes, leastMTU)
	}
	return nil
}

// fillProtocol completes what is asked of the targets.
func (p *Pair) fillProtocol(path string) error {
	if p.Protocol == "" {
		p.Protocol = "icmp"
		if p.Port != 0 {
			p.Protocol = "tcp"
		}
	}
	switch p.Protocol {
	case "icmp":
		if p.Port != 0 {
			return fmt.Errorf("%s.port: %d: icmp has no ports: must be left out", path, p.Port)
		}
	case "tcp", "udp":
		if p.Port == 0 {
			return fmt.Errorf("%s.port: missing: %s needs a port of 1 to 65535", path, p.Protocol)
		}
	default:
		return fmt.Errorf("%s.protocol: %q: must be tcp, udp or icmp", path, p.Protocol)
	}
	return nil
}

// checkRefs makes sure that refs name something; addresses only where they may.
func (t *Topology) checkRefs(path string, refs []string, addresses bool) error {
	if len(refs) == 0 {
		return fmt.Errorf("%s: missing: must be pods, nodes, or some of %s", path, t.targetForms())
	}
	for _, ref := range refs {
		targets, err := t.Targets(ref)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !addresses && len(targets) == 1 && targets[0].Kind == ToAddress {
			return fmt.Errorf("%s: %s: an address is no place in the lab: must be %s", path, ref, t.targetForms())
		}
	}
	return nil
}

func firstLine(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(first)
}
