package nft

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// quietBytes is the size of a transaction during which we do not listen.
const quietBytes = 256 << 10

// exchangeQuietly is exchange. The kernel makes a message of each object for those who
// listen, which takes it as long as the object itself (1 s of 2 for 200,000 members,
// Linux 6.18), and all of them are our own. So for a large transaction we do not
// listen. Whether others changed anything meanwhile the generation tells, which
// each batch raises by one: then everything is read again.
func (n *NFT) exchangeQuietly() (answer, error) {
	if len(n.tx.b) < quietBytes {
		return n.exchange()
	}
	before, err := n.generation()
	if err != nil {
		return answer{}, err
	}
	if err := n.events.Leave(unix.NFNLGRP_NFTABLES); err != nil {
		return answer{}, err
	}
	a, err := n.exchange()
	if joined := n.events.Join(unix.NFNLGRP_NFTABLES); joined != nil {
		return answer{}, joined
	}
	if err != nil {
		return a, err
	}
	after, err := n.generation()
	if err != nil {
		return answer{}, err
	}
	taken := uint32(n.tx.batches)
	if !a.ok() {
		taken-- // of the last one nothing is in force
	}
	if after != before+taken {
		n.loop.Resync()
	}
	return a, nil
}

// generation is the number of the packet filter's state, which each batch raises.
func (n *NFT) generation() (uint32, error) {
	seq := n.reader.Next()
	req := netlink.AppendHeader(nil, subsystem|unix.NFT_MSG_GETGEN, unix.NLM_F_REQUEST, seq)
	req = append(req, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	netlink.EndMessage(req, 0)
	if err := n.reader.Send(req); err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	for {
		datagram, err := n.reader.Read()
		if err != nil {
			return 0, fmt.Errorf("read the generation: %w", err)
		}
		for m := range netlink.Messages(datagram) {
			switch {
			case m.Seq != seq:
			case m.Type == unix.NLMSG_ERROR:
				return 0, fmt.Errorf("ask for the generation: %w", m.Errno())
			case m.Type == subsystem|unix.NFT_MSG_NEWGEN && len(m.Body) >= 4:
				for a, v := range netlink.Attributes(m.Body[4:]) {
					if a == unix.NFTA_GEN_ID {
						return netlink.BE32(v), nil
					}
				}
			}
		}
	}
}
