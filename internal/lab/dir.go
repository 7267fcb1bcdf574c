package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// Dir is the directory of one lab: its control socket, the etcd socket, and the
// logs. It is the one thing of a lab that outlives a holder that was killed.
type Dir string

// maxDir keeps the longest socket path in it within the 107 bytes that the
// kernel allows, whatever a node is called.
const maxDir = 60

var validLab = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$`)

// DirFor is the directory of the lab of that name: below /run/weft-lab for root,
// below $XDG_RUNTIME_DIR for others, and in /tmp for who has neither. Getenv
// reads the environment.
func DirFor(name string, getenv func(string) string) (Dir, error) {
	if !validLab.MatchString(name) {
		return "", fmt.Errorf("lab: name %q: must be 1 to 20 of a to z, 0 to 9 and -, with a letter or digit at both ends", name)
	}
	base := fmt.Sprintf("/tmp/weft-lab-%d", os.Geteuid())
	if dir := getenv("WEFT_LAB_DIR"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("lab: WEFT_LAB_DIR %q: must be an absolute path", dir)
		}
		base = dir
	} else if os.Geteuid() == 0 {
		base = "/run/weft-lab"
	} else if dir := getenv("XDG_RUNTIME_DIR"); dir != "" && unix.Access(dir, unix.W_OK) == nil {
		base = filepath.Join(dir, "weft-lab")
	}
	dir := Dir(filepath.Join(base, name))
	if len(dir) > maxDir {
		return "", fmt.Errorf("lab: directory %s: longer than %d bytes, too long for the paths of sockets: set WEFT_LAB_DIR to a shorter one", dir, maxDir)
	}
	return dir, nil
}

func (d Dir) control() string { return filepath.Join(string(d), "control.sock") }
func (d Dir) etcd() string    { return filepath.Join(string(d), "etcd.sock") }

// store holds etcd's data, netns the namespaces; both are memory, seen only from
// inside of the lab.
func (d Dir) store() string    { return filepath.Join(string(d), "store") }
func (d Dir) netns() string    { return filepath.Join(string(d), "netns") }
func (d Dir) storeLog() string { return filepath.Join(string(d), "store.log") }
func (d Dir) cni() string      { return filepath.Join(string(d), "cni") }
func (d Dir) secrets() string  { return filepath.Join(string(d), "secrets") }

// node is the directory of the i-th node; by number, as names may be long.
func (d Dir) node(i int) string   { return filepath.Join(string(d), "nodes", fmt.Sprint(i)) }
func (d Dir) router(i int) string { return filepath.Join(string(d), "routers", fmt.Sprint(i)) }

// Endpoint is where etcd clients find the lab's store.
func (d Dir) Endpoint() string { return "unix://" + d.etcd() }

// errBusy says that the lab is up.
var errBusy = errors.New("it is up already")

// claim makes the directory, empty, and locks it for as long as the returned file
// is open in some process. What a killed lab left there is removed. The error
// wraps errBusy when the lab is up.
func (d Dir) claim() (*os.File, error) {
	for {
		if err := os.MkdirAll(string(d), 0o700); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		if err := private(filepath.Dir(string(d))); err != nil {
			return nil, err
		}
		f, err := d.lock()
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue // somebody removed it in between
		}
		entries, err := os.ReadDir(string(d))
		if err == nil {
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(string(d), e.Name())))
			}
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lab: clean %s: %w", d, err)
		}
		return f, nil
	}
}

// private makes sure that nobody else can put things into a directory, such as
// one in /tmp that somebody else made first.
func private(dir string) error {
	var s unix.Stat_t
	if err := unix.Lstat(dir, &s); err != nil {
		return fmt.Errorf("lab: %s: %w", dir, err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR || int(s.Uid) != os.Geteuid() || s.Mode&0o022 != 0 {
		return fmt.Errorf("lab: %s: must be a directory of user %d that nobody else may write to: set WEFT_LAB_DIR to another one", dir, os.Geteuid())
	}
	return nil
}

// lock opens and locks the directory. It returns nil when the directory locked is
// no longer the one of that path, and an error that wraps errBusy when somebody
// else has the lock.
func (d Dir) lock() (*os.File, error) {
	f, err := os.Open(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lab: %s: %w", filepath.Base(string(d)), errBusy)
		}
		return nil, fmt.Errorf("lab: lock %s: %w", d, err)
	}
	var locked, there unix.Stat_t
	if unix.Fstat(int(f.Fd()), &locked) != nil || unix.Stat(string(d), &there) != nil || locked.Ino != there.Ino {
		f.Close()
		return nil, nil
	}
	return f, nil
}

// sweep removes the directory of a lab that is not up any more, and reports
// whether there was one. The error wraps errBusy when the lab is up.
func (d Dir) sweep() (bool, error) {
	f, err := d.lock()
	if err != nil || f == nil {
		return false, err
	}
	defer f.Close()
	if err := os.RemoveAll(string(d)); err != nil {
		return false, fmt.Errorf("lab: clean: %w", err)
	}
	_ = os.Remove(filepath.Dir(string(d))) // if it was the last lab
	return true, nil
}
