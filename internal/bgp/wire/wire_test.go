package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var compare = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

// body takes one message apart and fails if it is not exactly one of type want.
func body(t *testing.T, b []byte, want Type) []byte {
	t.Helper()
	kind, body, rest, err := Frame(b)
	if err != nil || body == nil || kind != want || len(rest) != 0 {
		t.Fatalf("frame %x: type %d, %d bytes left, %v", b, kind, len(rest), err)
	}
	return body
}

func TestOpenRoundTrip(t *testing.T) {
	t.Parallel()
	id := netip.MustParseAddr("10.0.0.1")
	for name, o := range map[string]Open{
		"bare":  {ASN: 1, ID: id},
		"plain": {ASN: 64512, HoldTime: 90 * time.Second, ID: id, Capabilities: Capabilities{Families: IPv4, Refresh: true}},
		"all": {ASN: 4200000000, HoldTime: 65535 * time.Second, ID: id, Capabilities: Capabilities{
			Families: IPv4 | IPv6, ASN4: true, Refresh: true, Enhanced: true, AddPathIn: IPv4 | IPv6, AddPathOut: IPv6,
			Restart: Restart{Known: true, Restarting: true, Time: 4095 * time.Second, Families: IPv4 | IPv6, Forwarding: IPv6},
		}},
		"restart without families": {ASN: 1, ID: id, Capabilities: Capabilities{Restart: Restart{Known: true, Time: time.Second}}},
	} {
		got, err := ParseOpen(body(t, AppendOpen([]byte(nil), o), TypeOpen))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(o, got, compare); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ hex, want string }{
		"version":           {"03 fc00 005a 0a000001 00", "OPEN message error: unsupported version"},
		"as 0":              {"04 0000 005a 0a000001 00", "OPEN message error: bad peer AS"},
		"id 0":              {"04 fc00 005a 00000000 00", "OPEN message error: bad BGP identifier"},
		"hold time of 2 s":  {"04 fc00 0002 0a000001 00", "OPEN message error: unacceptable hold time"},
		"parameter length":  {"04 fc00 005a 0a000001 04 0206", "OPEN message error"},
		"unknown parameter": {"04 fc00 005a 0a000001 03 030100", "OPEN message error: unsupported optional parameter"},
		"capability length": {"04 fc00 005a 0a000001 04 02020105", "OPEN message error"},
	} {
		_, err := ParseOpen(unhex(t, tt.hex))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	// RFC 9072: the long form of optional parameters.
	o, err := ParseOpen(unhex(t, "04 fc00 005a 0a000001 ff ff 0009 02 0006 4104 0000fc00"))
	if err != nil || !o.ASN4 {
		t.Errorf("extended parameters: %+v, %v", o, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample is one of everything.
func sample(hop string) *Attrs {
	return &Attrs{
		Origin: 2, ASPath: ASPath{{Sequence, []uint32{64512, 4200000000}}, {Set, []uint32{1, 70000}}},
		NextHop: netip.MustParseAddr(hop), MED: 0, HasMED: true, LocalPref: 200, HasLocalPref: true, Atomic: true,
		Aggregator: Aggregator{70000, netip.MustParseAddr("10.0.0.9")}, Communities: []uint32{0xFC000007, 0xFFFFFF01},
		Ext: [][8]byte{{0, 2, 1, 2, 3, 4, 5, 6}}, Large: [][3]uint32{{1, 2, 3}, {4200000000, 0, 7}},
		OriginatorID: netip.MustParseAddr("10.0.0.7"), ClusterList: []uint32{1, 2},
		Unknown: []Unknown{{Code: 99, Value: strings.Repeat("x", 300)}, {Code: 200, Value: ""}},
	}
}

func TestUpdateRoundTrip(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		family   Families
		hop      string
		prefixes string
		o        Options
	}{
		{IPv4, "10.0.0.1", "0.0.0.0/0 10.0.0.0/8 10.65.1.64/26 192.0.2.1/32", Options{ASN4: true, IBGP: true, Families: IPv4}},
		{IPv4, "10.0.0.1", "10.65.1.64/26", Options{IBGP: true, Families: IPv4 | IPv6}},
		{IPv6, "fd00::1", "::/0 2001:db8::/32 fd65::40/122 fd00::1/128", Options{ASN4: true, IBGP: true, Families: IPv6}},
		{IPv6, "fd00::1", "2001:db8::/33", Options{IBGP: true, Families: IPv4 | IPv6}},
	} {
		want := sample(tt.hop)
		if tt.family == IPv6 {
			want.LinkLocal = netip.MustParseAddr("fe80::1")
		}
		msg, ok := AppendReach(nil, tt.family, want, prefixes(tt.prefixes), tt.o)
		if !ok {
			t.Fatal("does not fit")
		}
		var u Update
		if err := u.Parse(body(t, msg, TypeUpdate), tt.o); err != nil {
			t.Fatal(err)
		}
		if len(u.Problems) > 0 || len(u.Reach) != 1 || u.EndOfRIB != 0 {
			t.Fatalf("%+v", u)
		}
		got := *u.Attrs
		got.NextHop, got.LinkLocal = u.Reach[0].NextHop, u.Reach[0].LinkLocal
		if d := cmp.Diff(want, &got, compare); d != "" {
			t.Errorf("%v %+v (-want +got):\n%s", tt.family, tt.o, d)
		}
		if got := list(u.Reach[0].Prefixes); got != tt.prefixes {
			t.Errorf("prefixes %s, want %s", got, tt.prefixes)
		}
		if err := u.Parse(body(t, AppendUnreach(nil, tt.family, prefixes(tt.prefixes)), TypeUpdate), tt.o); err != nil {
			t.Fatal(err)
		}
		if len(u.Unreach) != 1 || list(u.Unreach[0]) != tt.prefixes || u.Attrs != nil || u.EndOfRIB != 0 {
			t.Errorf("withdrawn: %+v", u)
		}
	}
}

func prefixes(s string) (out []netip.Prefix) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func list(p Prefixes) string {
	var out []string
	for _, prefix := range p.All() {
		out = append(out, prefix.String())
	}
	return strings.Join(out, " ")
}

func TestPacking(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"16.0.0.0", "2001:db8::"} {
		a := netip.MustParseAddr(base)
		f := FamilyOf(a)
		hop := map[Families]string{IPv4: "10.0.0.1", IPv6: "fd00::1"}[f]
		var all []netip.Prefix
		for range 5000 {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
			a = a.Next()
		}
		o := Options{ASN4: true, IBGP: true, Families: f}
		msgs, ok := AppendReach(nil, f, sample(hop), all, o)
		n, got, u := 0, []netip.Prefix(nil), Update{}
		for rest := msgs; len(rest) > 0; n++ {
			var b []byte
			var err error
			if _, b, rest, err = Frame(rest); err != nil || b == nil {
				t.Fatal(err)
			}
			if err := u.Parse(b, o); err != nil || len(u.Reach) != 1 {
				t.Fatal(err)
			}
			for _, p := range u.Reach[0].All() {
				got = append(got, p)
			}
		}
		per := 5
		if f == IPv6 {
			per = 17
		}
		if least := 5000*per/MaxLen + 1; !ok || n > least*5/4 {
			t.Errorf("%v: %d messages, %d could do", f, n, least)
		}
		if !reflect.DeepEqual(got, all) {
			t.Errorf("%v: prefixes were lost or reordered", f)
		}
		big := sample(hop)
		big.Unknown = []Unknown{{Code: 99, Value: strings.Repeat("x", 4090)}}
		if out, ok := AppendReach(nil, f, big, all[:1], o); ok || len(out) != 0 {
			t.Error("attributes that fit no message were sent")
		}
	}
}

func TestEndOfRIB(t *testing.T) {
	t.Parallel()
	for _, f := range []Families{IPv4, IPv6} {
		var u Update
		if err := u.Parse(body(t, AppendEndOfRIB(nil, f), TypeUpdate), Options{Families: IPv4 | IPv6}); err != nil || u.EndOfRIB != f {
			t.Errorf("%v: %+v, %v", f, u, err)
		}
	}
}

// The attributes of an acceptable announcement, to be broken one at a time.
const (
	origin  = "400101 00"
	path    = "400206 02010000fde9" // AS 65001
	nexthop = "400304 0a000002"
)

func TestErrors(t *testing.T) {
	t.Parallel()
	const (
		taken     = "taken"
		withdrawn = "withdrawn"
	)
	for name, tt := range map[string]struct{ attrs, want, problem string }{
		"good":                       {origin + path + nexthop, taken, ""},
		"origin undefined":           {"400101 03" + path + nexthop, withdrawn, "ORIGIN: malformed value 03"},
		"origin too long":            {"400102 0000" + path + nexthop, withdrawn, "ORIGIN: malformed value 0000"},
		"origin missing":             {path + nexthop, withdrawn, "ORIGIN: missing"},
		"origin twice":               {origin + "400101 02" + path + nexthop, taken, "ORIGIN: given twice"},
		"path segment kind":          {origin + "400206 05010000fde9" + nexthop, withdrawn, "AS_PATH: malformed value 05010000fde9"},
		"path overrun":               {origin + "400206 02020000fde9" + nexthop, withdrawn, "AS_PATH: malformed value 02020000fde9"},
		"path underrun":              {origin + "400207 02010000fde902" + nexthop, withdrawn, "AS_PATH: malformed value 02010000fde902"},
		"path segment empty":         {origin + "400202 0200" + nexthop, withdrawn, "AS_PATH: malformed value 0200"},
		"path missing":               {origin + nexthop, withdrawn, "AS_PATH: missing"},
		"path empty":                 {origin + "400200" + nexthop, taken, ""},
		"next hop length":            {origin + path + "400303 0a0000", withdrawn, "NEXT_HOP: length 3"},
		"next hop 0.0.0.0":           {origin + path + "400304 00000000", withdrawn, "NEXT_HOP: malformed value 00000000"},
		"next hop multicast":         {origin + path + "400304 e0000001", withdrawn, "NEXT_HOP: malformed value e0000001"},
		"next hop missing":           {origin + path, withdrawn, "NEXT_HOP: missing"},
		"flags":                      {"c00101 00" + path + nexthop, withdrawn, "ORIGIN: flags 0xc0, want 0x40"},
		"med length":                 {origin + path + nexthop + "800403 000000", withdrawn, "MULTI_EXIT_DISC: length 3"},
		"local pref from outside":    {origin + path + nexthop + "400503 000000", taken, ""},
		"originator from outside":    {origin + path + nexthop + "800901 00", taken, ""},
		"cluster list from outside":  {origin + path + nexthop + "800a01 00", taken, ""},
		"atomic aggregate length":    {origin + path + nexthop + "400601 00", taken, "ATOMIC_AGGREGATE: malformed value 00"},
		"aggregator length":          {origin + path + nexthop + "c00706 00010a000001", taken, "AGGREGATOR: malformed value 00010a000001"},
		"communities length":         {origin + path + nexthop + "c00803 000000", withdrawn, "COMMUNITIES: length 3"},
		"communities empty":          {origin + path + nexthop + "c00800", withdrawn, "COMMUNITIES: length 0"},
		"extended communities":       {origin + path + nexthop + "c01004 00000000", withdrawn, "EXTENDED_COMMUNITIES: length 4"},
		"large communities":          {origin + path + nexthop + "c02008 0000000000000000", withdrawn, "LARGE_COMMUNITY: length 8"},
		"AS4 path from a new one":    {origin + path + nexthop + "c01106 02010000fde9", taken, "AS4_PATH: not expected from a speaker of 4-byte AS numbers"},
		"unknown well-known":         {origin + path + nexthop + "406301 00", withdrawn, "attribute 99: unknown, but marked as well-known"},
		"unknown optional":           {origin + path + nexthop + "806301 00", taken, ""},
		"attribute beyond the list":  {origin + path + nexthop + "c00808 00000000", withdrawn, "COMMUNITIES: reaches beyond the attribute list"},
		"attribute header cut":       {origin + path + nexthop + "c0", withdrawn, "attribute 0: reaches beyond the attribute list"},
		"MP reach, bad next hop":     {origin + path + nexthop + "800e15 000201 10 00000000000000000000000000000000 00", withdrawn, "MP_REACH_NLRI: next hop :: cannot be one"},
		"MP reach, unknown family":   {origin + path + nexthop + "800e05 000180 00 00", taken, ""},
		"MP unreach, unknown family": {origin + path + nexthop + "800f03 000180", taken, ""},
		"MP reach, hop length":       {origin + path + nexthop + "800e09 000201 04 0a000001 00", "UPDATE message error: optional attribute error", ""},
		"MP reach cut":               {origin + path + nexthop + "800e04 000201 10", "UPDATE message error: optional attribute error", ""},
		"MP reach, prefix too long":  {origin + path + nexthop + "800e16 000201 10 fd000000000000000000000000000001 00 81", "UPDATE message error: optional attribute error", ""},
		"MP unreach cut":             {origin + path + nexthop + "800f02 0002", "UPDATE message error: optional attribute error", ""},
		"MP reach twice":             {origin + path + nexthop + "800e05 000180 00 00" + "800e05 000180 00 00", "UPDATE message error: malformed attribute list", ""},
		"MP reach flags":             {origin + path + nexthop + "c00e05 000180 00 00", "UPDATE message error: subcode 4", ""},
	} {
		attrs := unhex(t, tt.attrs)
		msg := append([]byte{0, 0, byte(len(attrs) >> 8), byte(len(attrs))}, attrs...)
		msg = append(msg, 24, 192, 0, 2)
		var u Update
		err := u.Parse(msg, Options{ASN4: true, Families: IPv4 | IPv6})
		got, problem := taken, ""
		if u.Withdraw {
			got = withdrawn
		}
		if err != nil {
			got = err.Error()
		}
		if len(u.Problems) > 0 {
			problem = u.Problems[0].Error()
		}
		if got != tt.want || problem != tt.problem {
			t.Errorf("%s: got %s (%s), want %s (%s)", name, got, problem, tt.want, tt.problem)
		}
		if err == nil && (len(u.Reach) != 1 || list(u.Reach[0].Prefixes) != "192.0.2.0/24" || (u.Attrs == nil) != u.Withdraw) {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

func TestBadStructure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ body, want string }{
		"short":                  {"00", "UPDATE message error: malformed attribute list"},
		"withdrawn too long":     {"0009 18c00002 0000", "UPDATE message error: malformed attribute list"},
		"attributes too long":    {"0000 0009 40", "UPDATE message error: malformed attribute list"},
		"withdrawn /33":          {"0006 210000000000 0000", "UPDATE message error: invalid network field"},
		"announced prefix cut":   {"0000 0000 18c000", "UPDATE message error: invalid network field"},
		"withdrawn host bits":    {"0004 18c00002 0000", ""},
		"withdrawn odd length":   {"0004 17c00003 0000", ""},
		"withdrawn default":      {"0001 00 0000", ""},
		"nothing (End-of-RIB)":   {"0000 0000", ""},
		"attributes and no NLRI": {"0000 0004 40010100", ""},
	} {
		var u Update
		got := ""
		if err := u.Parse(unhex(t, tt.body), Options{Families: IPv4}); err != nil {
			got = err.Error()
		}
		if got != tt.want || u.Withdraw {
			t.Errorf("%s: got %q, want %q; %+v", name, got, tt.want, u)
		}
		for _, p := range u.Unreach {
			for _, prefix := range p.All() {
				if prefix.Masked() != prefix {
					t.Errorf("%s: %v is not masked", name, prefix)
				}
			}
		}
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	marker := strings.Repeat("ff", 16)
	for name, tt := range map[string]struct{ msg, want string }{
		"marker":         {strings.Repeat("ff", 15) + "fe 0013 04", "message header error: connection not synchronised"},
		"type 0":         {marker + "0013 00", "message header error: bad message type"},
		"type 6":         {marker + "0013 06", "message header error: bad message type"},
		"too short":      {marker + "0012 04", "message header error: bad message length"},
		"short OPEN":     {marker + "001c 01", "message header error: bad message length"},
		"too long":       {marker + "1001 02", "message header error: bad message length"},
		"long KEEPALIVE": {marker + "0014 04 00", "message header error: bad message length"},
		"not all yet":    {marker + "0017 02 00", ""},
		"header in part": {marker + "00", ""},
		"nothing at all": {"", ""},
	} {
		_, b, _, err := Frame(unhex(t, tt.msg))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want || b != nil {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestAS4Merge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ path, as4, want string }{
		"one behind a 2-byte speaker": {"1 23456", "70000", "1 70000"},
		"all":                         {"23456 23456", "70000 70001", "70000 70001"},
		"none":                        {"1 2", "", "1 2"},
		"longer than the path":        {"1", "70000 70001", "1"},
		"prepended twice":             {"1 1 23456 2", "70000 2", "1 1 70000 2"},
	} {
		a := Attrs{ASPath: asPath(tt.path)}
		a.mergeAS4(asPath(tt.as4), Aggregator{})
		if got := a.ASPath.String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	a := Attrs{ASPath: asPath("1 23456"), Aggregator: Aggregator{ASN: 5}}
	if a.mergeAS4(asPath("70000"), Aggregator{ASN: 70000}); a.ASPath.String() != "1 23456" {
		t.Errorf("AS4_PATH older than the aggregation was used: %v", a.ASPath)
	}
}

func asPath(s string) ASPath {
	var seg Segment
	seg.Kind = Sequence
	for _, f := range strings.Fields(s) {
		n := uint32(0)
		for _, c := range f {
			n = n*10 + uint32(c-'0')
		}
		seg.ASNs = append(seg.ASNs, n)
	}
	if seg.ASNs == nil {
		return nil
	}
	return ASPath{seg}
}

func TestAddPath(t *testing.T) {
	t.Parallel()
	var u Update
	attrs := unhex(t, origin+path+nexthop)
	msg := append([]byte{0, 8, 0, 0, 0, 9, 24, 192, 0, 2, 0, byte(len(attrs))}, attrs...)
	msg = append(msg, 0, 0, 0, 1, 8, 10, 0, 0, 0, 2, 8, 10)
	if err := u.Parse(msg, Options{ASN4: true, Families: IPv4, AddPath: IPv4}); err != nil {
		t.Fatal(err)
	}
	var ids []uint32
	for id, p := range u.Reach[0].All() {
		ids = append(ids, id)
		if p.String() != "10.0.0.0/8" {
			t.Error(p)
		}
	}
	for id, p := range u.Unreach[0].All() {
		ids = append(ids, id)
		if p.String() != "192.0.2.0/24" {
			t.Error(p)
		}
	}
	if d := cmp.Diff([]uint32{1, 2, 9}, ids); d != "" {
		t.Error(d)
	}
}

func TestNotificationAndRefresh(t *testing.T) {
	t.Parallel()
	n := &Notification{Code: CodeCease, Subcode: CeaseDeconfigured, Data: []byte("bye")}
	if d := cmp.Diff(n, ParseNotification(body(t, AppendNotification(nil, n), TypeNotification))); d != "" {
		t.Error(d)
	}
	for _, r := range []Refresh{{Family: IPv4}, {Family: IPv6, Subtype: 2}} {
		if got, err := ParseRefresh(body(t, AppendRefresh(nil, r), TypeRefresh)); err != nil || got != r {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// FuzzUpdate: hostile bytes never panic, an error is always a NOTIFICATION,
// and what could be read is read the same again after it was written.
func FuzzUpdate(f *testing.F) {
	o := Options{ASN4: true, IBGP: true, Families: IPv4 | IPv6}
	for _, hop := range []string{"10.0.0.1", "fd00::1"} {
		a := sample(hop)
		p := map[bool]string{true: "10.0.0.0/8 192.0.2.0/25", false: "2001:db8::/32"}[a.NextHop.Is4()]
		msg, _ := AppendReach(nil, FamilyOf(a.NextHop), a, prefixes(p), o)
		f.Add(msg[HeaderLen:], uint8(7))
		f.Add(AppendUnreach(nil, FamilyOf(a.NextHop), prefixes(p))[HeaderLen:], uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, bits uint8) {
		if len(in) > MaxLen-HeaderLen {
			return
		}
		o := Options{ASN4: bits&1 != 0, IBGP: bits&2 != 0, Families: IPv4 | IPv6, AddPath: Families(bits >> 4 & 3)}
		var u Update
		if err := u.Parse(in, o); err != nil {
			var n *Notification
			if !errors.As(err, &n) {
				t.Fatalf("%v is not a NOTIFICATION", err)
			}
			return
		}
		o.AddPath = 0 // we never send path identifiers
		for _, r := range u.Reach {
			var list []netip.Prefix
			for _, p := range r.All() {
				list = append(list, p)
			}
			if u.Withdraw {
				continue
			}
			a := *u.Attrs
			a.NextHop, a.LinkLocal = r.NextHop, r.LinkLocal
			msgs, ok := AppendReach(nil, r.Family, &a, list, o)
			if !ok {
				continue
			}
			var again Update
			_, first, _, err := Frame(msgs)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Parse(first, o); err != nil || again.Withdraw || len(again.Problems) > 0 {
				t.Fatalf("%+v: %v %v", a, err, again.Problems)
			}
			b := *again.Attrs
			b.NextHop, b.LinkLocal = again.Reach[0].NextHop, again.Reach[0].LinkLocal
			if x, y := AppendAttrs(nil, &a, o), AppendAttrs(nil, &b, o); !bytes.Equal(x, y) || a.NextHop != b.NextHop {
				t.Fatalf("written and read again:\n%x\n%x", x, y)
			}
		}
	})
}

// FuzzFrame: any bytes are taken apart without a panic.
func FuzzFrame(f *testing.F) {
	f.Add(AppendOpen(nil, Open{ASN: 70000, HoldTime: 90e9, ID: netip.MustParseAddr("1.2.3.4"), Capabilities: Capabilities{Families: IPv4, ASN4: true, Restart: Restart{Known: true, Families: IPv4}}}))
	f.Add(AppendKeepalive(nil))
	f.Add(AppendNotification(nil, &Notification{Code: 6, Subcode: 3}))
	f.Add(AppendRefresh(nil, Refresh{Family: IPv6}))
	f.Fuzz(func(t *testing.T, in []byte) {
		for {
			kind, b, rest, err := Frame(in)
			if err != nil || b == nil {
				return
			}
			switch kind {
			case TypeOpen:
				if o, err := ParseOpen(b); err == nil {
					again, err := ParseOpen(AppendOpen(nil, o)[HeaderLen:])
					if d := cmp.Diff(o, again, compare); d != "" || err != nil {
						t.Fatalf("%v\n%s", err, d)
					}
				}
			case TypeNotification:
				_ = ParseNotification(b).Error()
			case TypeRefresh:
				_, _ = ParseRefresh(b)
			}
			in = rest
		}
	})
}
