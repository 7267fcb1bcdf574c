package control_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/model"
)

func service(name, uid string, annotations ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta("d/" + name)}
	s.UID = types.UID(uid)
	s.Spec.Type, s.Spec.IPFamilies = corev1.ServiceTypeLoadBalancer, []corev1.IPFamily{corev1.IPv4Protocol}
	for i := 0; i+1 < len(annotations); i += 2 {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, annotations[i], annotations[i+1])
	}
	return s
}

// ingress is the addresses in the status of a service of namespace d.
func (w *world) ingress(name string) string {
	w.t.Helper()
	s, err := w.kube.CoreV1().Services("d").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		out = append(out, i.IP)
	}
	return strings.Join(out, " ")
}

func (w *world) updateService(name string, change func(*corev1.Service)) {
	w.t.Helper()
	s, err := w.kube.CoreV1().Services("d").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	change(s)
	if _, err := w.kube.CoreV1().Services("d").Update(w.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// TestServices: services get addresses and keep them, get others when they ask for
// those, and give them back.
func TestServices(t *testing.T) {
	t.Parallel()
	cluster := service("cluster", "u0")
	cluster.Spec.Type = corev1.ServiceTypeClusterIP
	other := service("other", "u9")
	other.Spec.LoadBalancerClass = new("somebody.else")
	w := newWorld(t, service("web", "u1"), service("named", "u2", want.AddressesAnnotation, `["192.0.2.200"]`),
		service("bad", "u3", want.AddressesAnnotation, "192.0.2.7"), cluster, other)
	w.env["ENABLED_CONTROLLERS"] = "loadbalancer"
	stop := w.start()
	w.until("address of web", func() bool { return strings.HasPrefix(w.ingress("web"), "192.0.2.") })
	w.until("address of named", func() bool { return w.ingress("named") == "192.0.2.200" })
	w.until("note about bad", func() bool {
		return strings.Contains(strings.Join(w.state("loadbalancer").Notes, "\n"), "service d/bad: annotation projectcalico.org/loadBalancerIPs: \"192.0.2.7\": must be a list")
	})
	if got := w.ingress("cluster") + w.ingress("other") + w.ingress("bad"); got != "" {
		t.Errorf("others have addresses: %s", got)
	}
	for _, name := range w.names(model.KindBlockAffinity) {
		if !strings.HasPrefix(name, "virtual/load-balancer/192.0.2.") {
			t.Errorf("claim: %s", name)
		}
	}
	before := w.ingress("web")
	stop()
	w.start()
	w.until("second start", func() bool { return w.passes("loadbalancer") >= 1 })
	if got := w.ingress("web"); got != before {
		t.Errorf("address after a restart: got %s, want %s", got, before)
	}

	w.updateService("web", func(s *corev1.Service) {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, want.AddressesAnnotation, `["192.0.2.201"]`)
	})
	w.until("address that was asked for", func() bool { return w.ingress("web") == "192.0.2.201" })
	w.until("the old one is free", func() bool { return slices.Equal(w.held("lb-"), []string{"192.0.2.200", "192.0.2.201"}) })

	w.updateService("named", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	w.until("release at a change of the type", func() bool { return slices.Equal(w.held("lb-"), []string{"192.0.2.201"}) && w.ingress("named") == "" })
	if err := w.kube.CoreV1().Services("d").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("release at deletion", func() bool { return len(w.held("lb-")) == 0 })
	w.until("blocks and claims", func() bool {
		return len(w.names(model.KindIPAMBlock)) == 0 && len(w.names(model.KindBlockAffinity)) == 0
	})
}

// TestServiceMadeAgain: a service of the same name is another.
func TestServiceMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, service("web", "u1", want.AddressesAnnotation, `["192.0.2.200"]`))
	w.env["ENABLED_CONTROLLERS"] = "loadbalancer"
	stop := w.start()
	w.until("address", func() bool { return w.ingress("web") == "192.0.2.200" })
	stop()
	api := w.kube.CoreV1().Services("d")
	if err := api.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(t.Context(), service("web", "u2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.until("its own address", func() bool {
		got := w.held("lb-")
		return len(got) == 1 && w.ingress("web") == got[0] && got[0] != "192.0.2.200"
	})
}

// TestServicesHidden: services that an old list lacks keep their addresses.
func TestServicesHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, service("web", "u1"), service("db", "u2"))
	w.env["ENABLED_CONTROLLERS"] = "loadbalancer"
	stop := w.start()
	w.until("addresses", func() bool { return w.ingress("web") != "" && w.ingress("db") != "" })
	stop()
	w.hide("services", "db")
	w.start()
	w.until("passes", func() bool { return w.passes("loadbalancer") >= 1 })
	if got := w.held("lb-"); len(got) != 2 {
		t.Errorf("addresses left: %v", got)
	}
}
