package fib

// Hold keeps f from taking in events until the returned function is called.
func (f *FIB) Hold() (release func()) {
	f.mu.Lock()
	return f.mu.Unlock
}
