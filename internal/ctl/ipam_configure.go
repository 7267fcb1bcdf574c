package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/store"
)

func (c *client) ipamConfigureCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "configure",
		Short: "Change how addresses are given out",
		Long:  "Change how addresses are given out in the whole cluster. 'ipam show --show-configuration' shows it.",
		Example: "  " + c.name() + " ipam configure --strictaffinity=true\n  " + c.name() + " ipam configure --strictaffinity=true --max-blocks-per-host=4\n  " +
			c.name() + " ipam configure --ip-cooldown-seconds=30",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	all := ipamSettings()
	for i := range all {
		f.StringVar(&all[i].text, all[i].flag, "", all[i].help)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var given []ipamSetting
		for _, s := range all {
			if cmd.Flags().Changed(s.flag) {
				given = append(given, s)
			}
		}
		return c.configure(cmd.Context(), given)
	}
	return cmd
}

// ipamSetting is one setting of the assignment of addresses.
type ipamSetting struct {
	flag, help string
	title      string // as calicoctl calls it
	wrong      string // what calicoctl says of a value that makes no sense
	text       string // as given
	// set changes the settings; false: the text makes no sense. allowed continues
	// "must be". strict is whether values that Calico's tool takes are refused.
	set     func(spec *v3.IPAMConfigSpec, text string, strict bool) bool
	allowed string
	value   func(v3.IPAMConfigSpec) string
}

func ipamSettings() []ipamSetting {
	return []ipamSetting{
		{
			flag: "strictaffinity", title: "StrictAffinity", allowed: "true or false",
			help:  "true: a node takes addresses of its own blocks only; false: of others' when it has none left",
			wrong: "invalid value. Use true or false to set strictaffinity",
			set: func(spec *v3.IPAMConfigSpec, text string, _ bool) (ok bool) {
				var err error
				spec.StrictAffinity, err = strconv.ParseBool(text)
				return err == nil
			},
			value: func(spec v3.IPAMConfigSpec) string { return fmt.Sprint(spec.StrictAffinity) },
		},
		{
			flag: "max-blocks-per-host", title: "MaxBlocksPerHost", allowed: "a number, 0 or more; 0 means 20",
			help:  "the most blocks of a family that a node may have; 0: 20. It needs strict affinity",
			wrong: "invalid value for maxblockhost. Use a valid number",
			set: func(spec *v3.IPAMConfigSpec, text string, strict bool) bool {
				n, err := strconv.ParseInt(text, 10, 32)
				spec.MaxBlocksPerHost = int(n)
				return err == nil && (n >= 0 || !strict)
			},
			value: func(spec v3.IPAMConfigSpec) string { return fmt.Sprint(spec.MaxBlocksPerHost) },
		},
		{
			flag: "kubevirt-ip-persistence", title: "KubeVirtVMAddressPersistence", allowed: "Enabled or Disabled",
			help:  "Enabled: a virtual machine keeps its address when its pod changes; Disabled: it does not",
			wrong: "invalid value. Use Enabled or Disabled to set kubevirt-ip-persistence",
			set: func(spec *v3.IPAMConfigSpec, text string, _ bool) bool {
				spec.KubeVirtVMAddressPersistence = &text
				return text == "Enabled" || text == "Disabled"
			},
			value: persistence,
		},
		{
			flag: "ip-cooldown-seconds", title: "IPCooldownSeconds", allowed: "a number of seconds, 0 to 1200",
			help:  "how long a released address is not used again, in seconds",
			wrong: "invalid value for ip-cooldown-seconds. Use a valid number",
			set: func(spec *v3.IPAMConfigSpec, text string, strict bool) bool {
				n, err := strconv.ParseInt(text, 10, 32)
				spec.IPCooldownSeconds = int(n)
				return err == nil && (!strict || n >= 0 && n <= 1200)
			},
			value: func(spec v3.IPAMConfigSpec) string { return fmt.Sprint(spec.IPCooldownSeconds) },
		},
	}
}

// configure writes the given settings, all or none.
func (c *client) configure(ctx context.Context, given []ipamSetting) error {
	if len(given) == 0 {
		if c.calico {
			return errors.New("at least one configuration option must be specified")
		}
		return &UsageError{errors.New("nothing to change: at least one of the settings must be given: see --help")}
	}
	var wrong []error
	for _, s := range given {
		var spec v3.IPAMConfigSpec
		switch {
		case s.set(&spec, s.text, !c.calico):
		case c.calico:
			return errors.New(s.wrong)
		default:
			wrong = append(wrong, fmt.Errorf("--%s: %q: must be %s", s.flag, s.text, s.allowed))
		}
	}
	if len(wrong) > 0 {
		return &UsageError{errors.Join(wrong...)}
	}
	st, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // what was written is confirmed
	spec, err := c.writeSettings(ctx, st, given)
	if err != nil {
		return err
	}
	for _, s := range given {
		if c.calico {
			_, err = fmt.Fprintf(c.Stdout, "Successfully set %s to: %s\n", s.title, s.value(spec))
		} else {
			_, err = fmt.Fprintf(c.Stdout, "%s is %s\n", s.title, s.value(spec))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSettings changes what is stored by compare-and-swap.
func (c *client) writeSettings(ctx context.Context, st store.Store, given []ipamSetting) (v3.IPAMConfigSpec, error) {
	const attempts = 10
	var last error
	for range attempts {
		o, err := ipamConfig(ctx, st)
		if err != nil {
			return v3.IPAMConfigSpec{}, err
		}
		next := *o.Object.(*v3.IPAMConfig)
		for _, s := range given {
			s.set(&next.Spec, s.text, !c.calico)
		}
		if next.Spec.MaxBlocksPerHost > 0 && !next.Spec.StrictAffinity {
			if c.calico {
				return next.Spec, errors.New("error: MaxBlocksPerHost requires StrictAffinity to be enabled")
			}
			return next.Spec, fmt.Errorf("ipam: configure: max-blocks-per-host %d needs strict affinity: --strictaffinity=true, or --max-blocks-per-host=0", next.Spec.MaxBlocksPerHost)
		}
		if !next.Spec.StrictAffinity && !next.Spec.AutoAllocateBlocks {
			return next.Spec, errors.New("ipam: configure: strict affinity must stay on, as nodes may not claim blocks by themselves (autoAllocateBlocks is false)")
		}
		verb := store.Update
		if o.Raw() == nil && o.Meta().ResourceVersion == "" {
			verb = store.Create
		}
		_, err = st.Commit(ctx, store.Op{Verb: verb, Object: o.With(&next)})
		if err == nil {
			return next.Spec, nil
		}
		if last = err; !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	return v3.IPAMConfigSpec{}, fmt.Errorf("ipam: configure: %w", last)
}
