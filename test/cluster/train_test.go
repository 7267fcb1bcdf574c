package cluster_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// platform is the port at which trains echo.
const platform = "9000"

// flow is what a train says of one peer and protocol; see test/k8s/train.
type flow struct {
	To     string `json:"to"`
	Proto  string `json:"proto"`
	Sent   int    `json:"sent"`
	Back   int    `json:"back"`
	Lost   int    `json:"lost"`
	GapMS  int    `json:"gap_ms"`
	Broken int    `json:"broken"`
	Last   int64  `json:"last"` // milliseconds since 1970
}

// train is pods that send to one another without a pause.
type train struct {
	t         testing.TB
	namespace string
	pods      []string
	rate      int // messages a second, of each flow
}

// depart starts a train: the pods echo, and the first of each pair of nodes sends to the
// other. It returns when all messages come back.
func depart(t testing.TB, namespace string, pairs ...[2]int) *train {
	t.Helper()
	return ride(t, namespace, 200, pairs)
}

// express is depart with a message each millisecond.
func express(t testing.TB, namespace string, pairs ...[2]int) *train {
	t.Helper()
	return ride(t, namespace, 1000, pairs)
}

func ride(t testing.TB, namespace string, rate int, pairs [][2]int) *train {
	t.Helper()
	tr := trains(t, namespace, fmt.Sprintf(`send, -every, "%v"`, time.Second/time.Duration(rate)), pairs)
	tr.rate = rate
	tr.ride(2 * rate)
	return tr
}

// trains starts pods that echo, and pods that do something to them.
func trains(t testing.TB, namespace, do string, pairs [][2]int) *train {
	t.Helper()
	tr := &train{t: t, namespace: namespace}
	var echoes []pod
	for i, pair := range pairs {
		echoes = append(echoes, pod{
			name: fmt.Sprintf("echo-%d", i), node: pair[1], labels: "train: echo",
			command: fmt.Sprintf("[/train, echo, %q]", platform),
		})
	}
	start(t, namespace, echoes...)
	var senders []pod
	for i, pair := range pairs {
		to := address(t, namespace, echoes[i].name)
		name := fmt.Sprintf("send-%d", i)
		tr.pods = append(tr.pods, name)
		senders = append(senders, pod{
			name: name, node: pair[0], labels: "train: send",
			command: fmt.Sprintf("[/train, %s, -to, %q, %q]", do, to+":"+platform, platform),
		})
	}
	start(t, namespace, senders...)
	return tr
}

// flows reads what each pod said last.
func (tr *train) flows() (map[string][]flow, error) {
	all := map[string][]flow{}
	for _, name := range tr.pods {
		out, err := command("", "kubectl", "-n", tr.namespace, "logs", name, "--tail=1")
		if err != nil {
			return nil, err
		}
		var flows []flow
		if err := json.Unmarshal([]byte(strings.TrimSpace(out)), &flows); err != nil {
			return nil, fmt.Errorf("%s says %q: %w", name, out, err)
		}
		all[name] = flows
	}
	return all, nil
}

// ride waits until each flow has got that many more messages back.
func (tr *train) ride(more int) {
	tr.t.Helper()
	var before map[string][]flow
	eventually(tr.t, "train", func() error {
		now, err := tr.flows()
		if err != nil {
			return err
		}
		if before == nil {
			before = now
		}
		for name, flows := range now {
			for i, f := range flows {
				if f.Back < before[name][i].Back+more {
					return fmt.Errorf("%s to %s by %s: %d of %d messages came back", name, f.To, f.Proto, f.Back-before[name][i].Back, more)
				}
			}
		}
		return nil
	})
}

// arrived fails the test if anything was lost so far. What is lost now is known after five seconds.
func (tr *train) arrived(during string) {
	tr.t.Helper()
	tr.ride(8 * tr.rate)
	all, err := tr.flows()
	if err != nil {
		tr.t.Fatal(err)
	}
	for name, flows := range all {
		for _, f := range flows {
			if f.Lost > 0 || f.Broken > 0 {
				tr.t.Errorf("%s: %s to %s by %s lost %d of %d messages (longest gap %d ms), and its connection broke %d times, want no loss",
					during, name, f.To, f.Proto, f.Lost, f.Sent, f.GapMS, f.Broken)
				continue
			}
			tr.t.Logf("%s: %s to %s by %s: %d messages, none lost, longest gap %d ms", during, name, f.To, f.Proto, f.Sent, f.GapMS)
		}
	}
}
