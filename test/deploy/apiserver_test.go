package deploy

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/weft-net/weft/internal/testenv"
)

// kubectl runs kubectl as cluster administrator.
func kubectl(t *testing.T, api *testenv.API, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(testenv.NeedKubernetes(t), "kubectl"), append([]string{"--kubeconfig", api.Kubeconfig("admin")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestK8sManifests: a real API server takes every object, knows every field of it, and
// gives the service accounts just the rights that they need.
func TestK8sManifests(t *testing.T) {
	t.Parallel()
	api := testenv.APIServer(t)
	for _, file := range files() {
		out, err := kubectl(t, api, "apply", "--dry-run=server", "--validate=strict", "-f", filepath.Join(dir, file))
		if err != nil {
			t.Errorf("%s: %v:\n%s", file, err, out)
		}
	}
	manifest := filepath.Join(dir, "weft.yaml")
	if out, err := kubectl(t, api, "apply", "-f", manifest); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	out, err := kubectl(t, api, "wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
	if err != nil || strings.Contains(out, "no matching") {
		t.Errorf("%v:\n%s", err, out)
	}
	out, err = kubectl(t, api, "apply", "-f", manifest)
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		// The server fills in parts of definitions, upon which kubectl sends them again.
		if !strings.HasSuffix(line, " unchanged\n") && !strings.HasPrefix(line, "customresourcedefinition.") {
			t.Errorf("applied once more, without a change: %s", line)
		}
	}
	rights(t, api)
}

// rights asks the API server what each service account may do.
func rights(t *testing.T, api *testenv.API) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", api.Kubeconfig("admin"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{ // who, yes or no, verb, resource.group[/subresource], namespace[/name]
		"node yes watch pods", "node yes patch pods/status x", "node no patch pods x", "node no delete pods x", "node no create pods/exec x",
		"node yes patch nodes/status", "node no update nodes", "node no delete nodes", "node yes list servicecidrs.networking.k8s.io",
		"node yes watch networkpolicies.networking.k8s.io", "node yes watch clusternetworkpolicies.policy.networking.k8s.io", "node no create networkpolicies.networking.k8s.io x",
		"node yes get configmaps kube-system/kubeadm-config", "node no get configmaps kube-system/other", "node no list configmaps kube-system",
		"node yes get daemonsets.apps kube-system/weft-node", "node no get daemonsets.apps kube-system/kube-proxy",
		"node no get secrets kube-system/x", "node no create serviceaccounts/token kube-system/x", "node no create tokenreviews.authentication.k8s.io",
		"node yes create ippools.projectcalico.org", "node no delete ippools.projectcalico.org", "node yes delete ipamblocks.projectcalico.org",
		"node yes watch globalnetworkpolicies.projectcalico.org", "node no create globalnetworkpolicies.projectcalico.org", "node no update tiers.projectcalico.org",
		"node yes watch ipamconfigs.crd.projectcalico.org", "node yes create events default",
		"controllers yes watch nodes", "controllers yes watch pods", "controllers no patch pods/status x", "controllers no patch nodes/status", "controllers no delete nodes",
		"controllers yes update services/status x", "controllers no update services x", "controllers no get secrets kube-system/x", "controllers no watch namespaces",
		"controllers yes delete ipamblocks.projectcalico.org", "controllers yes create hostendpoints.projectcalico.org", "controllers no delete ippools.projectcalico.org",
		"controllers yes update leases.coordination.k8s.io kube-system/weft-controllers", "controllers no update leases.coordination.k8s.io kube-system/other",
	} {
		words := append(strings.Fields(line), "")
		want := words[1] == "yes"
		resource, sub, _ := strings.Cut(words[3], "/")
		resource, group, _ := strings.Cut(resource, ".")
		namespace, name, _ := strings.Cut(words[4], "/")
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:   "system:serviceaccount:kube-system:weft-" + words[0],
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: words[2], Group: group, Resource: resource, Subresource: sub, Namespace: namespace, Name: name,
			},
		}}
		// The authorizer learns of roles by a watch of its own.
		for limit := time.Now().Add(testenv.Patience); ; time.Sleep(50 * time.Millisecond) {
			answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if answer.Status.Allowed == want {
				break
			}
			if !want || time.Now().After(limit) {
				t.Errorf("%s: allowed: %v %s", line, answer.Status.Allowed, answer.Status.Reason)
				break
			}
		}
	}
}
