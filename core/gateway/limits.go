package gateway

import (
	"time"

	"github.com/weir-gateway/weir/core"
)

// Defaults are the limits of a target that names none of its own. A limit that is zero here is no limit.
var Defaults = core.Limits{
	MaxFrame:         64 << 20,
	StatementTimeout: 0,
	Idle:             time.Hour,
	Rows:             0,
	Sessions:         1000,
	SignIn:           10 * time.Second,
	Drain:            30 * time.Second,
}

// Bounds of the gateway as a whole: Limits fields that are zero take these.
const (
	defaultConnections       = 10_000
	defaultUnsignedPerSource = 256

	reservedFiles = 128 // of the process, for what is not a client

	killGrace   = 5 * time.Second // from the end of a client's context to the end of its connection
	loiterGrace = 2 * time.Second // from there until the gateway stops without it
	expiryGrace = time.Minute     // after a session's token expired, as for the clocks' difference at sign-in
)

// Limits bound what all clients together may use.
type Limits struct {
	Connections int // open at a time; 0: 10 000, or fewer when the process may not open that many files
	PerListener int // open at a time on one listener; 0: as Connections
	// UnsignedPerSource bounds the connections of one address (IPv6: one /64) that have not signed in yet; 0: 256.
	// Loopback is not counted: whoever is on this machine has shorter ways to use it up.
	UnsignedPerSource int
	// SessionsPerIdentity bounds the sessions that one identity has open at a time, on all targets; 0: no bound.
	SessionsPerIdentity int
}

func (l Limits) withDefaults() Limits {
	if l.Connections <= 0 {
		l.Connections = defaultConnections
		if n, ok := maxFiles(); ok { // two a client, and the journal must never go short
			l.Connections = min(l.Connections, max((n-reservedFiles)/2, 1))
		}
	}
	if l.PerListener <= 0 || l.PerListener > l.Connections {
		l.PerListener = l.Connections
	}
	if l.UnsignedPerSource <= 0 {
		l.UnsignedPerSource = defaultUnsignedPerSource
	}
	return l
}

// fill gives the limits that are zero their defaults.
func fill(l core.Limits) core.Limits {
	set(&l.MaxFrame, Defaults.MaxFrame)
	set(&l.StatementTimeout, Defaults.StatementTimeout)
	set(&l.Idle, Defaults.Idle)
	set(&l.Rows, Defaults.Rows)
	set(&l.Sessions, Defaults.Sessions)
	set(&l.SignIn, Defaults.SignIn)
	set(&l.Drain, Defaults.Drain)
	return l
}

func set[T int | int64 | time.Duration](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	}
}
