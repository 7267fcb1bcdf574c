package qos

import (
	"math"
	"math/bits"

	"github.com/weft-net/weft/internal/plan"
)

// bucket is a token bucket as the kernel has it. It is comparable; the zero bucket is
// none.
type bucket struct {
	rate, peak       uint64 // bytes per second; peak 0: any
	burst, peakBurst uint32 // bytes
	limit            uint32 // bytes that wait, and those that pass at once
}

const (
	// wait is how long a packet waits at most at the full rate, in seconds.
	waitFraction = 40 // of a second: 25 ms
	// leastQueue is what may wait at the smallest rate, bytes: a segment that the network
	// card would part.
	leastQueue = 64 << 10
	// burstFraction of a second is what passes at once where nothing else is said, and
	// leastPackets full packets at least.
	burstFraction = 10
	leastPackets  = 10
	// etherHeader stands before each packet of a link.
	etherHeader = 14
)

// bucketFor is the bucket of a rate on a link with that MTU, bytes. What would let no
// full packet pass is taken for what lets one.
func bucketFor(r plan.Rate, mtu uint32) bucket {
	if r.Bits == 0 {
		return bucket{}
	}
	packet := uint64(mtu) + etherHeader
	b := bucket{rate: max(r.Bits/8, 1)}
	burst := r.Burst / 8
	if r.Burst == 0 {
		burst = max(b.rate/burstFraction, leastPackets*packet)
	}
	b.burst = clip(max(burst, packet))
	b.limit = clip(uint64(b.burst) + max(b.rate/waitFraction, leastQueue))
	if peak := r.Peak / 8; peak > b.rate { // one that is not above the rate says nothing
		b.peak, b.peakBurst = peak, clip(max(r.MinBurst/8, packet))
	}
	return b
}

func clip(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// is reports whether the kernel's root d is the bucket b. The kernel tells of bursts how
// long they take, and rounds.
func (b bucket) is(d *qdisc) bool {
	return d.ours() && d.bucket.rate == b.rate && d.bucket.peak == b.peak && d.bucket.limit == b.limit &&
		near(d.ticks[0], ticks(b.burst, b.rate)) && (b.peak == 0 || near(d.ticks[1], ticks(b.peakBurst, b.peak)))
}

// ticks is how long n bytes take, as the kernel counts it: in 32 bits, of what may be more.
func ticks(n uint32, rate uint64) uint32 {
	high, low := bits.Mul64(uint64(n), 1e9/tickNanoseconds)
	if rate <= high {
		return 0
	}
	quotient, _ := bits.Div64(high, low, rate)
	return uint32(quotient)
}

func near(have, want uint32) bool {
	d := int64(int32(have - want))
	return max(d, -d) <= int64(want>>6)+16
}
