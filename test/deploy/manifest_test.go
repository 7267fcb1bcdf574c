package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
)

const dir = "../../deploy"

func files() []string { return []string{"weft.yaml", "weft-etcd.yaml", "weft-takeover.yaml"} }

// object is one document of a manifest.
type object struct {
	Kind, Name, Namespace string
	text                  []byte
}

// objects reads a manifest.
func objects(t *testing.T, file string) []object {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	for text := range bytes.SplitSeq(b, []byte("\n---\n")) {
		var meta struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(text, &meta); err != nil {
			t.Fatalf("%s: %v:\n%s", file, err, text)
		}
		if meta.APIVersion == "" && meta.Kind == "" && bytes.HasPrefix(text, []byte("#")) {
			continue // the head of the file
		}
		if meta.APIVersion == "" || meta.Kind == "" || meta.Metadata.Name == "" {
			t.Fatalf("%s: not an object:\n%s", file, text)
		}
		all = append(all, object{meta.Kind, meta.Metadata.Name, meta.Metadata.Namespace, text})
	}
	return all
}

// find reads the one object of a kind and name, which has all fields that it names.
func find[T any](t *testing.T, file, kind, name string) T {
	t.Helper()
	var v T
	for _, o := range objects(t, file) {
		if o.Kind == kind && o.Name == name {
			if err := yaml.UnmarshalStrict(o.text, &v); err != nil {
				t.Fatalf("%s: %s %s: %v", file, kind, name, err)
			}
			return v
		}
	}
	t.Fatalf("%s: no %s %s", file, kind, name)
	return v
}

// roles are the rules of each role.
func roles(t *testing.T, file string) map[string][]rbacv1.PolicyRule {
	t.Helper()
	out := map[string][]rbacv1.PolicyRule{}
	for _, o := range objects(t, file) {
		if o.Kind == "ClusterRole" || o.Kind == "Role" {
			out[o.Kind+"/"+o.Name] = find[rbacv1.ClusterRole](t, file, o.Kind, o.Name).Rules
		}
	}
	return out
}

// TestOnce: no object stands twice in a manifest, and each namespaced one says where.
func TestOnce(t *testing.T) {
	t.Parallel()
	for _, file := range files() {
		seen := map[string]bool{}
		for _, o := range objects(t, file) {
			id := o.Kind + "/" + o.Namespace + "/" + o.Name
			if seen[id] {
				t.Errorf("%s: %s twice", file, id)
			}
			seen[id] = true
			clusterWide := slices.Contains([]string{"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}, o.Kind)
			if clusterWide != (o.Namespace == "") {
				t.Errorf("%s: %s: namespace %q", file, id, o.Namespace)
			}
		}
		if len(seen) < 12 {
			t.Errorf("%s: only %d objects", file, len(seen))
		}
	}
}

// TestLeastRights: roles name what they allow, and what of it changes Kubernetes' own
// objects is written down here.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	writes := map[string][]string{ // of resources that are not Calico's
		"pods/status": {"patch"}, "nodes/status": {"patch"}, "services/status": {"update"},
		"events": {"create", "patch"}, "leases": {"create", "get", "update"},
	}
	for _, file := range files() {
		for role, rules := range roles(t, file) {
			for _, r := range rules {
				all := slices.Concat(r.APIGroups, r.Resources, r.Verbs)
				for _, s := range all {
					if strings.Contains(s, "*") {
						t.Errorf("%s: %s: wildcard in %v", file, role, all)
					}
				}
				if strings.HasSuffix(r.APIGroups[0], "projectcalico.org") {
					continue
				}
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						if !slices.Contains(append(writes[resource], "get", "list", "watch"), verb) || resource == "secrets" {
							t.Errorf("%s: %s: may %s %s", file, role, verb, resource)
						}
					}
				}
			}
		}
	}
}

// TestKinds: what roles allow of Calico's kinds exists, and nodes may read every kind.
func TestKinds(t *testing.T) {
	t.Parallel()
	installed := map[string]bool{}
	for _, o := range objects(t, "weft.yaml") {
		if plural, ok := strings.CutSuffix(o.Name, ".projectcalico.org"); ok {
			installed[plural] = true
		}
	}
	readable := map[string]bool{}
	for role, rules := range roles(t, "weft.yaml") {
		for _, r := range rules {
			if !slices.Contains(r.APIGroups, "projectcalico.org") {
				continue
			}
			for _, resource := range r.Resources {
				plural, _, _ := strings.Cut(resource, "/")
				if !installed[plural] && plural != "ipamconfigs" { // of the older group
					t.Errorf("%s: %s: there is no such kind", role, resource)
				}
				if role == "ClusterRole/weft-node" && slices.Contains(r.Verbs, "watch") {
					readable[resource] = true
				}
			}
		}
	}
	for _, k := range v3.Kinds() {
		if installed[k.Plural] && !readable[k.Plural] && k.Name != "KubeControllersConfiguration" {
			t.Errorf("weft-node may not watch %s", k.Plural)
		}
	}
	if len(readable) < 15 {
		t.Errorf("weft-node may watch only %d kinds", len(readable))
	}
}

// TestOneImage: nothing but the one image is ever pulled, and that only if it is missing.
func TestOneImage(t *testing.T) {
	t.Parallel()
	for _, file := range files() {
		node := find[appsv1.DaemonSet](t, file, "DaemonSet", "weft-node").Spec.Template.Spec
		controllers := find[appsv1.Deployment](t, file, "Deployment", "weft-controllers").Spec.Template.Spec
		for _, c := range slices.Concat(node.InitContainers, node.Containers, controllers.InitContainers, controllers.Containers) {
			if c.Image != "localhost/weft:latest" || c.ImagePullPolicy != corev1.PullIfNotPresent {
				t.Errorf("%s: container %s: image %s, pulled %s", file, c.Name, c.Image, c.ImagePullPolicy)
			}
		}
	}
}

// TestControllersConfined: the controllers' pod has no rights on its node at all.
func TestControllersConfined(t *testing.T) {
	t.Parallel()
	for _, file := range files() {
		pod := find[appsv1.Deployment](t, file, "Deployment", "weft-controllers").Spec.Template.Spec
		c := pod.Containers[0]
		s, of := c.SecurityContext, pod.SecurityContext
		if !*of.RunAsNonRoot || *of.RunAsUser == 0 || of.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
			*s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || s.Privileged != nil ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: pod %+v, container %+v", file, *of, *s)
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				t.Errorf("%s: mounts the node's %s", file, v.HostPath.Path)
			}
		}
		if pod.PriorityClassName != "system-cluster-critical" || c.Resources.Requests.Memory().IsZero() || c.LivenessProbe == nil || c.ReadinessProbe == nil {
			t.Errorf("%s: priority %q, requests %v, probes %v %v", file, pod.PriorityClassName, c.Resources.Requests, c.LivenessProbe, c.ReadinessProbe)
		}
	}
}

// TestNodePod: the agent's pod has the capabilities that it needs and no more, and the
// paths that the CNI executable on the host asks for are the host's.
func TestNodePod(t *testing.T) {
	t.Parallel()
	for _, file := range files() {
		set := find[appsv1.DaemonSet](t, file, "DaemonSet", "weft-node").Spec
		pod := set.Template.Spec
		c := pod.Containers[0]
		want := []corev1.Capability{"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "DAC_OVERRIDE"}
		if s := c.SecurityContext; s.Privileged != nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, want) {
			t.Errorf("%s: %+v", file, *s)
		}
		if !pod.HostNetwork || pod.HostPID || pod.PriorityClassName != "system-node-critical" || set.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue() != 1 ||
			c.Resources.Requests.Memory().IsZero() || c.LivenessProbe == nil || c.ReadinessProbe == nil {
			t.Errorf("%s: %+v", file, set)
		}
		for _, path := range []string{rpc.DefaultSocket, rpc.DefaultQueue, "/var/lib/calico/nodename", "/var/lib/calico/mtu"} {
			if !shared(pod, path) {
				t.Errorf("%s: %s is not the host's", file, path)
			}
		}
	}
}

// shared reports whether a path is the same in the container and on the host.
func shared(pod corev1.PodSpec, path string) bool {
	for _, m := range pod.Containers[0].VolumeMounts {
		for _, v := range pod.Volumes {
			if v.Name == m.Name && v.HostPath != nil && v.HostPath.Path == m.MountPath && strings.HasPrefix(path, m.MountPath+"/") {
				return true
			}
		}
	}
	return false
}
