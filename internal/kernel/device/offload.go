package device

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// ethtoolValue is struct ethtool_value (linux/ethtool.h).
type ethtoolValue struct{ cmd, data uint32 }

// ifreq is struct ifreq with a pointer to data.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the union is larger than a pointer
}

// txChecksum reads whether a device leaves checksums to what is below it.
func (d *Devices) txChecksum(name string) (bool, error) {
	v := ethtoolValue{cmd: unix.ETHTOOL_GTXCSUM}
	err := d.ethtool(name, &v)
	return v.data != 0, err
}

// setTxChecksum switches it; segmentation of large packets goes and comes with it.
func (d *Devices) setTxChecksum(name string, on bool) error {
	return d.ethtool(name, &ethtoolValue{cmd: unix.ETHTOOL_STXCSUM, data: uint32(btoi(on))})
}

func (d *Devices) ethtool(name string, v *ethtoolValue) error {
	r := ifreq{data: unsafe.Pointer(v)}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.ioctl), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

// setOffload keeps the kernel from leaving inner checksums to the network card where
// that is asked for, or does not work.
func (d *Devices) setOffload(v *plan.Device, k *kernelLink, l *link) error {
	if v.Kind != plan.VXLAN {
		return nil
	}
	off := v.NoChecksumOffload || d.proof.broken(d.offloadBroken)
	if !off && !l.quietSum {
		return nil // whoever switched it off had a reason
	}
	on, err := d.txChecksum(k.name)
	if err == nil && on == off {
		err = d.setTxChecksum(k.name, !off)
	}
	if err != nil {
		return fmt.Errorf("set checksum offload: %w", err)
	}
	l.quietSum = off
	return nil
}

// offloadBroken takes in why checksums cannot be offloaded.
func (d *Devices) offloadBroken(why string) {
	d.mu.Lock()
	for name, v := range d.want {
		if v.Kind == plan.VXLAN {
			d.dirty[name] = true
		}
	}
	d.kick()
	d.mu.Unlock()
	d.notice(Problem{"vxlan", "checksum offload is off: " + why})
}
