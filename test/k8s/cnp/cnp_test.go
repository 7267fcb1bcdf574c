// Package cnp runs the conformance suite of sigs.k8s.io/network-policy-api for
// ClusterNetworkPolicy, all features, against the cluster of $KUBECONFIG.
//
// It differs from that module's own TestConformance in its patience alone. A shared
// machine with two cores may take longer than the ten seconds that upstream gives a verdict
// to show: a minute here. A probe waits two seconds for an answer, not three: half of all
// probes wait for one that must not come, and they are most of the time that the suite takes.
package cnp

import (
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	api "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

func TestConformance(t *testing.T) {
	cfg, err := config.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Install(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	s := suite.New(suite.Options{
		Client: c, ClientSet: clientset, KubeConfig: *cfg,
		CleanupBaseResources: true, EnableAllSupportedFeatures: true,
		TimeoutConfig: timeouts.TimeoutConfig{
			GetTimeout:            time.Minute,
			CreateTimeout:         2 * time.Minute,
			DeleteTimeout:         2 * time.Minute,
			NamespacesMustBeReady: 10 * time.Minute,
			PokeTimeout:           time.Minute,
			RequestTimeout:        2 * time.Second,
		},
	})
	s.Setup(t)
	s.Run(t, tests.ConformanceTests)
}
