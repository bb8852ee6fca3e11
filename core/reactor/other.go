//go:build !linux

package reactor

import (
	"errors"
	"net"
)

// Reactor is not to be had on this system.
type Reactor struct{}

// Conn is not to be had on this system.
type Conn struct{ net.Conn }

// Shared fails: there is no reactor for this system yet.
func Shared() (*Reactor, error) { return nil, errors.New("reactor: there is none for this system") }

// Pair reports false.
func (*Reactor) Pair(_, _ net.Conn) (_, _ *Conn, ok bool) { return nil, nil, false }

// Attach does nothing.
func (*Conn) Attach(Step) {}

// Yield does nothing.
func (*Conn) Yield() {}

// Resume does nothing.
func (*Conn) Resume() {}

// Bulk does nothing.
func (*Conn) Bulk(bool) {}
