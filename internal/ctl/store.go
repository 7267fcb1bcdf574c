package ctl

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store/etcd/server"
)

func storeCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Run an embedded datastore: an etcd of one member",
		Long:  "Run an embedded datastore: etcd's own server with one member, for a lab or for a cluster\nthat brings no etcd of its own. It ends on SIGTERM; what it holds stays in the data directory.",
		Example: "  weft store --data-dir /var/lib/weft/store --listen http://127.0.0.1:2379\n" +
			"  weft store --data-dir /tmp/s --listen unix:///run/weft/etcd.sock\n" +
			"  weft store --listen https://10.0.0.1:2379 --cert-file s.pem --key-file s.key --trusted-ca-file ca.pem",
		Args: cobra.NoArgs,
	}
	dir := cmd.Flags().String("data-dir", "/var/lib/weft/store", "directory of the data; made if it does not exist")
	listen := cmd.Flags().StringSlice("listen", []string{"http://127.0.0.1:2379"}, "client URLs to serve: http://ADDRESS:PORT, https://ADDRESS:PORT or unix:///PATH; may be repeated")
	cert := cmd.Flags().String("cert-file", "", "PEM certificate for https URLs")
	key := cmd.Flags().String("key-file", "", "PEM key of the certificate")
	ca := cmd.Flags().String("trusted-ca-file", "", "PEM authority that clients' certificates must come from; without it clients need none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var level slog.LevelVar
		log := run.Logger(p.Stderr, &level)
		s, err := server.Start(cmd.Context(), server.Config{Dir: *dir, ClientURLs: *listen, CertFile: *cert, KeyFile: *key, CAFile: *ca, Log: log})
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		defer s.Stop()
		log.Info("store is ready", "listen", *listen)
		select {
		case <-cmd.Context().Done():
			return nil
		case err := <-s.Err():
			return fmt.Errorf("store: %w", err)
		}
	}
	return cmd
}
