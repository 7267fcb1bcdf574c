package device

// Hold keeps d from taking in events until the returned function is called.
func (d *Devices) Hold() (release func()) {
	d.mu.Lock()
	return d.mu.Unlock
}
