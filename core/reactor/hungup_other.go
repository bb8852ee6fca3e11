//go:build !linux

package reactor

import "net"

// HungUp cannot tell on this system.
func HungUp(net.Conn) bool { return false }
