// Package sysctl makes the network's settings writable for the node agent of a
// container.
//
// Container runtimes mount /proc/sys read-only unless a container is privileged,
// which would also give it every device and every capability. The agent has
// CAP_SYS_ADMIN anyway, to enter the network namespaces of pods: with it, it
// mounts /proc/sys/net once more in its own mount namespace, writable. So the
// rest of /proc/sys (kernel, vm, fs) stays read-only for it.
//
// What is written there, and by whom, is the business of the packages beside this
// one: each writes the settings of what it owns.
//
// Invariant: nothing is mounted where the settings are writable already, as on a
// plain machine; and no mount namespace but that of the process changes, as long
// as its mounts do not propagate, which is so in containers.
package sysctl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// dir is where the settings of the network namespace are.
const dir = "/proc/sys/net"

// Unlock makes the settings below /proc/sys/net writable if they are mounted
// read-only. Without CAP_SYS_ADMIN the error wraps EPERM.
func Unlock() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("sysctl: %s: %w", dir, err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err != nil {
		return fmt.Errorf("sysctl: %s is read-only, and cannot be mounted writable: %w: a container needs the capability SYS_ADMIN", dir, err)
	}
	return nil
}
