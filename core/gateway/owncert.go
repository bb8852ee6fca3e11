package gateway

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

const ownCertLook = time.Second // at the files, at most

// ownCert is a certificate in files of the operator's, which whoever renews it replaces while the gateway runs. What was
// good last counts while they are halfway through, or gone.
type ownCert struct {
	cert, key string
	now       func() time.Time

	mu     sync.Mutex
	pair   *tls.Certificate
	looked time.Time
	seen   [2]time.Time
}

func (o *ownCert) load() error {
	seen := o.times()
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return fmt.Errorf("gateway: certificate %s: %w", o.cert, err)
	}
	o.pair, o.seen = &pair, seen
	return nil
}

// times are when the files were changed; zero: nobody can tell.
func (o *ownCert) times() (out [2]time.Time) {
	for i, path := range []string{o.cert, o.key} {
		if info, err := os.Stat(path); err == nil {
			out[i] = info.ModTime()
		}
	}
	return out
}

func (o *ownCert) certificate() *tls.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); now.Sub(o.looked) >= ownCertLook || now.Before(o.looked) {
		o.looked = now
		if o.times() != o.seen {
			_ = o.load() // that it cannot be read is said by weir check, and by a reload
		}
	}
	return o.pair
}
