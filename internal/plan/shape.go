package plan

// Shape limits the bandwidth of a workload's link. It is comparable. The zero Shape but for
// its Link limits nothing.
type Shape struct {
	Link    string // the node's end
	Ingress Rate   // to the workload
	Egress  Rate   // from it
}

// Rate is the bandwidth of one direction, as a token bucket that fills with Bits a second.
// The zero Rate is no limit.
type Rate struct {
	Bits     uint64 // per second; 0: no limit
	Burst    uint64 // bits that the bucket holds; 0: what suits Bits
	Peak     uint64 // bits per second at which it may be emptied; 0: any
	MinBurst uint64 // bits at once within Peak; 0: a packet
}
