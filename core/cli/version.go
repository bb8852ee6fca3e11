package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) version() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "version", Short: "Print what this binary is", Example: "  weir version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			version, revision := a.release()
			protocols := []string{}
			for _, p := range a.Protocols {
				protocols = append(protocols, p.Name())
			}
			if output == "json" {
				return a.printJSON(map[string]any{
					"version": version, "revision": revision, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "protocols": protocols,
				})
			}
			fmt.Fprintf(a.out, "weir %s (%s, %s/%s), speaks %s\n", strings.TrimSpace(version+" "+revision), runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(protocols, ", "))
			return nil
		},
	}
	outputFlag(c, &output)
	return c
}

// release says which version this is, and of which revision of the sources.
func (a *app) release() (version, revision string) {
	version = a.Version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, ""
	}
	if version == "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value[:min(12, len(s.Value))]
		}
	}
	return version, revision
}
