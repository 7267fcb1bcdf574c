package install

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// watcher hears when something changes in directories (inotify(7)).
type watcher struct {
	file *os.File // nil: it can't hear; the loop's own times have to do
	log  *slog.Logger
	last string // what add said last
	end  chan struct{}
}

// newWatcher makes one that watches nothing yet.
func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, end: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Warn("CNI directories are not watched: what somebody removes comes back at the next start", "err", err)
		return w
	}
	w.file = os.NewFile(uintptr(fd), "inotify") // not blocking: Close ends a Read
	return w
}

// add watches directories, as far as they are there and are not watched yet. A directory that
// was made anew is another one.
func (w *watcher) add(dirs ...string) {
	const mask = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if w == nil || w.file == nil {
		return
	}
	c, err := w.file.SyscallConn()
	if err != nil {
		return // closed
	}
	var text string
	for _, dir := range dirs {
		_ = c.Control(func(fd uintptr) { _, err = unix.InotifyAddWatch(int(fd), dir, mask) })
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) { // whoever writes there will say so
			text = fmt.Sprintf("%s: %v", dir, err)
		}
	}
	if text != "" && text != w.last {
		w.log.Warn("CNI directories are not watched: what somebody removes comes back at the next start", "err", text)
	}
	w.last = text
}

// run calls changed after each burst of changes until close. Our own changes are among them;
// what they lead to finds all as it is to be.
func (w *watcher) run(changed func()) error {
	if w.file == nil {
		<-w.end
		return nil
	}
	buffer := make([]byte, 4096)
	for {
		_, err := w.file.Read(buffer)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("cni: watch directories: %w", err)
		}
		changed()
	}
}

func (w *watcher) close() {
	close(w.end)
	if w.file != nil {
		_ = w.file.Close()
	}
}
