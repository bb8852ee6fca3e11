package opa

import (
	"net/netip"

	"github.com/weir-gateway/weir/core"
)

// clientOf is the address that a session's client comes from, without its port; empty where it has none.
func clientOf(s *core.Session) string {
	if s.Hello.Client == nil {
		return ""
	}
	a, err := netip.ParseAddrPort(s.Hello.Client.String())
	if err != nil {
		return ""
	}
	return a.Addr().Unmap().WithZone("").String()
}
