package kv

// scanner walks over JSON text of which only a few parts matter. What it passes
// over it does not check: its users compare that with text that was checked. Once
// bad it stays so, and loops over it end.
type scanner struct {
	text []byte
	at   int
	bad  bool
}

// space passes over white space.
func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// is passes over c if it comes next.
func (s *scanner) is(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// open begins an object or list: true if there is an item in it.
func (s *scanner) open(bracket byte) bool {
	if !s.is(bracket) {
		s.bad = true
	}
	return !s.bad && !s.is(bracket+2) // ']' and '}' are two after '[' and '{'
}

// next goes on behind an item: true if there is another before the end.
func (s *scanner) next(end byte) bool {
	if s.bad || s.is(end) {
		return false
	}
	s.bad = !s.is(',')
	return !s.bad
}

// key reads a name and the colon behind it.
func (s *scanner) key() []byte {
	name := s.plain()
	s.bad = s.bad || !s.is(':')
	return name
}

// plain reads a string of printable ASCII without escapes; it is not nil then. Any
// other value is bad.
func (s *scanner) plain() []byte {
	s.bad = s.bad || !s.is('"')
	start := s.at
	for ; !s.bad && s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return s.text[start : s.at-1]
		case c < ' ' || c > '~' || c == '\\':
			s.bad = true
		}
	}
	s.bad = true
	return nil
}

// skip passes over a value of any kind.
func (s *scanner) skip() {
	s.space()
	depth := 0
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '"':
			s.string()
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return // of what the value is in
			}
			depth--
			if depth == 0 {
				s.at++
				return
			}
		case ',':
			if depth == 0 {
				return
			}
		}
		if s.bad {
			return
		}
	}
	s.bad = s.bad || depth > 0
}

// string passes over a string, up to the quote that ends it.
func (s *scanner) string() {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			return
		}
	}
	s.bad = true
}

// word passes over a word such as null if it comes next.
func (s *scanner) word(text string) bool {
	s.space()
	if rest := s.text[s.at:]; len(rest) < len(text) || string(rest[:len(text)]) != text {
		return false
	}
	s.at += len(text)
	return true
}

// number reads an integer that is not negative and has at most that many digits,
// 19 of which fit into the result; any other value is bad.
func (s *scanner) number(maxDigits int) uint64 {
	s.space()
	start, n := s.at, uint64(0)
	for ; s.at < len(s.text) && s.text[s.at]-'0' <= 9; s.at++ {
		n = n*10 + uint64(s.text[s.at]-'0')
	}
	digits := s.at - start
	s.bad = s.bad || digits == 0 || digits > maxDigits || digits > 1 && s.text[start] == '0'
	return n
}
