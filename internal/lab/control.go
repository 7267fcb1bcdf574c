package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// What is said on the control socket. A connection carries one request, then
// replies until one with End. A client that closes early ends what it asked for:
// an up is taken back unless it was kept, a command is killed.

// verb is what a request asks for.
type verb string

const (
	verbUp     verb = "up"     // on the socket that the holder was started with
	verbKeep   verb = "keep"   // after the replies to it: the lab lives on without us
	verbStatus verb = "status" // reply: Status
	verbCheck  verb = "check"  // replies: Step…, Report
	verbExec   verb = "exec"   // with the three standard streams; reply: Exit
	verbStop   verb = "stop"   // end a node agent or router
	verbStart  verb = "start"  // start it again
	verbDown   verb = "down"
)

type request struct {
	Verb verb         `json:"verb"`
	Up   *upRequest   `json:"up,omitempty"`
	Exec *execRequest `json:"exec,omitempty"`
	Name string       `json:"name,omitempty"` // of stop and start: a node or router
	Kill bool         `json:"kill,omitempty"` // of stop: by SIGKILL
}

// upRequest is all that the holder needs to know.
type upRequest struct {
	Name       string   `json:"name"`
	Dir        Dir      `json:"dir"`
	File       string   `json:"file"` // name of the topology, for errors
	Topology   []byte   `json:"topology"`
	Executable string   `json:"executable"` // weft
	CNI        string   `json:"cni"`        // weft-cni
	Environ    []string `json:"environ"`    // for everything that is started
	Lease      bool     `json:"lease"`      // the lab ends with the connection
	Patience   int      `json:"patience"`   // what times are multiplied by; at least 1
}

type execRequest struct {
	Target  string   `json:"target"`
	Argv    []string `json:"argv"`
	Cwd     string   `json:"cwd"`
	Environ []string `json:"environ"`
	TTY     bool     `json:"tty"` // the streams are a terminal made for the command
}

type reply struct {
	Step   string  `json:"step,omitempty"`  // progress, for people
	Error  string  `json:"error,omitempty"` // one line
	Status *Status `json:"status,omitempty"`
	Report *Report `json:"report,omitempty"`
	Exit   *int    `json:"exit,omitempty"`
	End    bool    `json:"end,omitempty"`
}

// link is one connection of the control socket.
type link struct {
	conn *net.UnixConn
	in   *json.Decoder
}

func newLink(conn *net.UnixConn) *link { return &link{conn, json.NewDecoder(conn)} }

// linkOf makes a link of an inherited socket; f is closed.
func linkOf(f *os.File) (*link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	return newLink(u), nil
}

func (l *link) close() { _ = l.conn.Close() }

// send writes one message.
func (l *link) send(message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(append(body, '\n'))
	return err
}

// ask sends the request, with files alongside if there are any.
func (l *link) ask(r request, files ...*os.File) error {
	if len(files) == 0 {
		return l.send(r)
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	// The descriptors go with a byte of their own, which the request follows: so
	// they cannot be torn from it by the reader's buffer.
	if _, _, err := l.conn.WriteMsgUnix([]byte{'F'}, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	return l.send(r)
}

// accept reads one request, and the files that came with it.
func (l *link) accept() (request, []*os.File, error) {
	var r request
	first := make([]byte, 1)
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := l.conn.ReadMsgUnix(first, oob)
	if err != nil {
		return r, nil, err
	}
	if n == 0 {
		return r, nil, net.ErrClosed
	}
	files, err := filesIn(oob[:oobn])
	if err != nil {
		return r, nil, err
	}
	if first[0] != 'F' { // no files: it is the request's first byte
		l.in = json.NewDecoder(&prefixed{first, l.conn})
	}
	return r, files, l.in.Decode(&r)
}

// prefixed reads some bytes, then the connection.
type prefixed struct {
	first []byte
	conn  *net.UnixConn
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.conn.Read(b)
}

func filesIn(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("stream %d", len(files))))
		}
	}
	return files, nil
}

// closed returns a channel that is closed when the other side has gone. Nothing
// more can be read from l after that.
func (l *link) closed() <-chan struct{} {
	_, gone := l.keptOrClosed()
	return gone
}

// keptOrClosed returns, beside what closed does, a channel that is closed when the
// other side has asked for verbKeep.
func (l *link) keptOrClosed() (kept, gone <-chan struct{}) {
	keep, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		once := sync.OnceFunc(func() { close(keep) })
		for {
			var r request
			if l.in.Decode(&r) != nil {
				return
			}
			if r.Verb == verbKeep {
				once()
			}
		}
	}()
	return keep, end
}

// replies reads until the end and hands every reply to each, which may be nil. It
// returns the last one; its Error is the error.
func (l *link) replies(each func(reply)) (reply, error) {
	for {
		var r reply
		if err := l.in.Decode(&r); err != nil {
			return r, fmt.Errorf("lab: the holder is gone: %w", err)
		}
		if r.Error != "" {
			return r, errors.New(r.Error)
		}
		if r.End {
			return r, nil
		}
		if each != nil {
			each(r)
		}
	}
}
