// Weir is a guardrail gateway: see core/doc.go for the map.
package main

import (
	"os"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/cli"
	"github.com/weir-gateway/weir/plugins"
	pii "github.com/weir-gateway/weir/plugins/pii/native"
	"github.com/weir-gateway/weir/policies"
	"github.com/weir-gateway/weir/protocols/postgres"
	"github.com/weir-gateway/weir/protocols/ssh"
	"github.com/weir-gateway/weir/sdk"
)

// What this build speaks: one import and one line a protocol.
var protocols = []core.Protocol{
	postgres.New(),
	ssh.New(),
}

// The plugins of this build that are no guests: one import and one line a plugin.
var natives = []*core.Native{
	pii.New(),
}

func main() {
	os.Exit(cli.Main(cli.Build{Protocols: protocols, Natives: natives, Plugins: plugins.FS, SDK: sdk.FS, Policies: policies.FS}))
}
