package control_test

import (
	"testing"

	"github.com/weft-net/weft/internal/control"
)

func TestEnv(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ name, value, want string }{
		"controllers":        {"ENABLED_CONTROLLERS", "policy, Node", ""},
		"unknown controller": {"ENABLED_CONTROLLERS", "policy,nodes", `ENABLED_CONTROLLERS: "nodes": must be some of policy,namespace,serviceaccount,workloadendpoint,node,loadbalancer, parted by commas`},
		"period":             {"RECONCILER_PERIOD", "90s", ""},
		"period without":     {"RECONCILER_PERIOD", "5", `RECONCILER_PERIOD: "5": must be a duration such as 5m, 0 for never`},
		"negative":           {"COMPACTION_PERIOD", "-5m", `COMPACTION_PERIOD: "-5m": must be a duration such as 5m, 0 for never`},
		"switch":             {"AUTO_HOST_ENDPOINTS", "enabled", ""},
		"bad switch":         {"SYNC_NODE_LABELS", "on", `SYNC_NODE_LABELS: "on": must be enabled or disabled`},
		"workers":            {"POLICY_WORKERS", "3", ""},
		"no workers":         {"POLICY_WORKERS", "0", `POLICY_WORKERS: "0": must be 1 to 64`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := control.EnvFrom(func(name string) string {
				if name == tt.name {
					return tt.value
				}
				return ""
			})
			if got := message(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "0": "", "1": "", "0.35": "",
		"20%": `WEFT_MAX_RELEASE_SHARE: "20%": must be 0 to 1, such as 0.2`,
		"1.1": `WEFT_MAX_RELEASE_SHARE: "1.1": must be 0 to 1, such as 0.2`,
		"NaN": `WEFT_MAX_RELEASE_SHARE: "NaN": must be 0 to 1, such as 0.2`,
	} {
		if _, err := control.ShareFrom(text); message(err) != want {
			t.Errorf("%q: got %q, want %q", text, message(err), want)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
