package diags

import (
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	t.Parallel()
	s := NewScrubber("hunter2", "correct horse\nbattery staple", "abc")
	for line, want := range map[string]string{
		"nothing is secret here":                                     "nothing is secret here",
		"it is hunter2, I think":                                     "it is (secret), I think",
		"battery staple":                                             "(secret)",
		"abcdef":                                                     "abcdef", // too short to be looked for
		"password: abc":                                              "password: (secret)",
		"ETCD_PASSWORD=x y":                                          "ETCD_PASSWORD=(secret) y",
		"K8S_API_TOKEN='x y'":                                        "K8S_API_TOKEN='(secret)'",
		`{"token": "x", "mtu": 1}`:                                   `{"token": "(secret)", "mtu": 1}`,
		`msg="{\"token\":\"x,y\",\"mtu\":1}"`:                        `msg="{\"token\":\"(secret)\",\"mtu\":1}"`,
		`secretKeyRef: {"name": "bgp", "key": "rr"}`:                 `secretKeyRef: {"name": "bgp", "key": "rr"}`,
		"serviceAccountTokenFile: /var/run/x":                        "serviceAccountTokenFile: /var/run/x",
		"tokenExpirationSeconds: 3607":                               "tokenExpirationSeconds: 3607",
		"publicKey: AAAA=":                                           "publicKey: AAAA=",
		"privateKey: AAAA=":                                          "privateKey: (secret)",
		"wg: private_key=AAAA= peer=b":                               "wg: private_key=(secret) peer=b",
		"https://root:x@10.0.0.1:2379":                               "https://root:(secret)@10.0.0.1:2379",
		"Authorization: Bearer abcdefghijk":                          "Authorization: (secret) (secret)",
		"client-key-data: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0":           "client-key-data: (secret)",
		"a eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5l.c2lnbmF0dXJl b": "a (secret) b",
		"-----BEGIN EC PRIVATE KEY-----\\nMHc\\n-----END EC PRIVATE KEY-----": "(secret)",
		"tokens 5, password": "tokens 5, password",
	} {
		if got := s.Line(line); got != want {
			t.Errorf("%q:\ngot  %q\nwant %q", line, got, want)
		}
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	text := "a\n  key: -----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAAAA\n-----END RSA PRIVATE KEY-----\nb hunter2\n-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\nlast hunter2"
	want := "a\n  key: (secret)\nb (secret)\n-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\nlast (secret)"
	for size := 1; size < 20; size += 3 { // however it is cut
		var out strings.Builder
		w := NewScrubber("hunter2").Writer(&out)
		for i := 0; i < len(text); i += size {
			if _, err := w.Write([]byte(text[i:min(i+size, len(text))])); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("in pieces of %d: got\n%s", size, out.String())
		}
	}
}

// FuzzWriter: what is known to be secret is never passed on, and without secrets nothing is
// lost.
func FuzzWriter(f *testing.F) {
	f.Add("hunter2 hunterhunter2\n", uint8(3))
	f.Add("token: hunter2\r\n\x00-----BEGIN PRIVATE KEY-----\nhunter2", uint8(1))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		var out strings.Builder
		w := NewScrubber("hunter2").Writer(&out)
		for i := 0; i < len(text); i += int(size) + 1 {
			_, _ = w.Write([]byte(text[i:min(i+int(size)+1, len(text))]))
		}
		_ = w.Close()
		if strings.Contains(out.String(), "hunter2") {
			t.Errorf("%q became %q", text, out.String())
		}
	})
}
