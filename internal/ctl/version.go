package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store"
)

// versionTimeout bounds the wait for an agent that is asked for its version.
const versionTimeout = 2 * time.Second

// knownRelease is the newest release of Calico whose datastore weft knows.
func knownRelease() release { return release{3, 33} }

// release is the first two numbers of a version: what stored objects look like does not
// change within one.
type release struct{ major, minor int }

// String is the release as it is written.
func (r release) String() string { return fmt.Sprintf("v%d.%d", r.major, r.minor) }

func (r release) after(o release) bool {
	return r.major > o.major || r.major == o.major && r.minor > o.minor
}

// parseRelease reads a version such as v3.33.0-0.dev; false if it is none.
func parseRelease(version string) (release, bool) {
	var r release
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return r, false
	}
	var err1, err2 error
	r.major, err1 = strconv.Atoi(parts[0])
	r.minor, err2 = strconv.Atoi(parts[1])
	return r, err1 == nil && err2 == nil && r.major >= 0 && r.minor >= 0
}

// versions is what `version -o json` prints.
type versions struct {
	Client  string          `json:"client"`
	Agent   *agentVersion   `json:"agent,omitempty"`   // nil: none answers
	Cluster *clusterVersion `json:"cluster,omitempty"` // nil: there is none, or it is not known
}

// agentVersion is of the agent of this machine.
type agentVersion struct {
	Node    string `json:"node"`
	Version string `json:"version"`
}

// clusterVersion is what the ClusterInformation says.
type clusterVersion struct {
	Version string `json:"version"`
	Type    string `json:"type"`
	GUID    string `json:"guid"`
	Ready   bool   `json:"ready"` // the datastore is not locked
}

func (c *client) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program, of the agent here, and of the cluster",
		Long: `Print the version of this program, of the agent of this machine if there is one, and of
the cluster: the version that Calico or weft noted in its ClusterInformation.`,
		Example: "  weft version\n  weft version --client\n  weft version -o json",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	only := cmd.Flags().Bool("client", false, "of this program only")
	poll := cmd.Flags().Duration("poll", 0, "look again after this time, for good, and print what changed; 0s: once")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *poll < 0 {
			return &UsageError{fmt.Errorf("--poll %v: must not be negative", *poll)}
		}
		last := ""
		for {
			text, err := c.versionText(cmd.Context(), *only, *output)
			if text != last {
				if _, err := io.WriteString(c.Stdout, text); err != nil {
					return err
				}
			}
			if last = text; err != nil || *poll == 0 || *only {
				return err
			}
			select {
			case <-time.After(*poll):
			case <-cmd.Context().Done():
				return nil // as it was told to
			}
		}
	}
	return cmd
}

// versionText is what there is to print, and beside it what could not be found out.
func (c *client) versionText(ctx context.Context, only bool, output string) (string, error) {
	var b strings.Builder
	v := versions{Client: c.Version}
	if c.calico && output == "table" {
		fmt.Fprintf(&b, "Client Version:    %s\nGit commit:        %s\n", c.Version, "")
		if only {
			return b.String(), nil
		}
		info, err := c.clusterInformation(ctx)
		switch {
		case err == nil:
			fmt.Fprintf(&b, "Cluster Version:   %s\nCluster Type:      %s\n", or(info.Spec.CalicoVersion, "unknown"), or(info.Spec.ClusterType, "unknown"))
			return b.String(), nil
		case errors.Is(err, store.ErrNotFound):
			err = errors.New("resource does not exist: ClusterInformation(default) with error: <nil>")
		case errors.As(err, new(*ExitError)):
			return b.String(), err
		}
		return b.String(), fmt.Errorf("unable to retrieve Cluster Version or Type: %w", err)
	}
	var agentText, clusterText string
	var failed error
	if !only {
		v.Agent, agentText = c.agentVersion(ctx)
		v.Cluster, clusterText, failed = c.clusterVersion(ctx)
	}
	err := printAs(&b, output, v, func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "weft", v.Client)
		if !only {
			_, _ = fmt.Fprintf(w, "agent\t%s\ncluster\t%s\n", agentText, clusterText)
		}
		return w.Flush()
	})
	return b.String(), errors.Join(err, failed)
}

// agentVersion asks the agent of this machine, and says what a person should read.
func (c *client) agentVersion(ctx context.Context) (*agentVersion, string) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	var s agent.Status
	if err := run.Fetch(ctx, c.statusSocket(), "status", &s); err != nil {
		return nil, fmt.Sprintf("none answers at %s: %v", c.statusSocket(), cause(err))
	}
	return &agentVersion{s.Node, s.Version}, fmt.Sprintf("%s, of node %s", s.Version, s.Node)
}

// clusterVersion reads the cluster's, and says what a person should read. Where no datastore is
// set there is no cluster, which is no error.
func (c *client) clusterVersion(ctx context.Context) (*clusterVersion, string, error) {
	info, err := c.clusterInformation(ctx)
	switch {
	case errors.Is(err, settings.ErrNone):
		return nil, "none: no datastore is set", nil
	case errors.Is(err, store.ErrNotFound):
		return nil, "none: nobody has set up this datastore yet", nil
	case err != nil:
		return nil, "not known", fmt.Errorf("version: the cluster's: %w", err)
	}
	v := clusterVersion{
		Version: or(info.Spec.CalicoVersion, "unknown"), Type: or(info.Spec.ClusterType, "unknown"), GUID: info.Spec.ClusterGUID,
		Ready: info.Spec.DatastoreReady == nil || *info.Spec.DatastoreReady,
	}
	text := fmt.Sprintf("%s, type %s", v.Version, v.Type)
	if !v.Ready {
		text += ", locked"
	}
	return &v, text, nil
}

// clusterInformation reads the one that there is.
func (c *client) clusterInformation(ctx context.Context) (*v3.ClusterInformation, error) {
	st, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = st.Close() }()
	return clusterInformation(ctx, st)
}

func clusterInformation(ctx context.Context, st store.Store) (*v3.ClusterInformation, error) {
	o, err := st.Get(ctx, model.Cluster{}.Key())
	if err != nil {
		return nil, err
	}
	info, ok := o.Object.(*v3.ClusterInformation)
	if !ok {
		return nil, fmt.Errorf("%v: is a %T", model.Cluster{}.Key(), o.Object)
	}
	return info, nil
}

// ErrNewer says that the cluster is of a release that this program does not know, so that what
// it writes might damage what it does not understand.
var ErrNewer = errors.New("the cluster is newer than this program")

// checkVersion looks at who else writes to st. If that is a release that weft does not know it
// says so, and what it returns refuses to write, unless --allow-version-mismatch is given.
// Everything else goes on with st: a version that can't be read says nothing against it.
func (c *client) checkVersion(ctx context.Context, st store.Store) store.Store {
	info, err := clusterInformation(ctx, st)
	if err != nil {
		return st
	}
	theirs, ok := parseRelease(info.Spec.CalicoVersion)
	if !ok || !theirs.after(knownRelease()) {
		return st
	}
	why := fmt.Errorf("%w: it is %s, which this one (%s) knows up to %v", ErrNewer, info.Spec.CalicoVersion, c.Version, knownRelease())
	if c.allowVersionMismatch {
		_, _ = fmt.Fprintf(c.Stderr, "warning: %v; writing all the same, as --allow-version-mismatch says\n", why)
		return st
	}
	_, _ = fmt.Fprintf(c.Stderr, "warning: %v: reading only, unless --allow-version-mismatch is given\n", why)
	return readOnly{st, why}
}

// readOnly is a store that is not written to.
type readOnly struct {
	store.Store
	why error
}

// Commit implements store.Store; it refuses.
func (r readOnly) Commit(context.Context, ...store.Op) ([]store.Object, error) {
	return nil, fmt.Errorf("%w: %w: give --allow-version-mismatch to write all the same", store.ErrRefused, r.why)
}
