package run

import "testing"

func TestConstantPages(t *testing.T) {
	t.Parallel()
	const exe = "/usr/bin/weft"
	for line, want := range map[string]bool{
		"00400000-01000000 r-xp 00000000 fe:00 123  /usr/bin/weft":          true,
		"01000000-02000000 r--p 00c00000 fe:00 123  /usr/bin/weft":          true,
		"02000000-02100000 rw-p 01c00000 fe:00 123  /usr/bin/weft":          false, // its content would be lost
		"7f0000000000-7f0000001000 r-xp 00000000 fe:00 9  /usr/lib/libc.so": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                       false,
		"nonsense": false,
	} {
		start, end, ok := constantPages(line, exe)
		if ok != want || ok && (start == 0 || end <= start) {
			t.Errorf("%q: got %x-%x, %t; want %t", line, start, end, ok, want)
		}
	}
}

func TestDropStartup(t *testing.T) {
	t.Parallel()
	if err := DropStartup(); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLevel("loud"); err == nil { // code and constants are still there
		t.Fatal("want an error")
	}
}
