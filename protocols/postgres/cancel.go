package postgres

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// keyring knows the cancel keys that Weir has given to clients. The upstream's own key never leaves it.
type keyring struct {
	mu    sync.Mutex
	keys  map[string]keyed
	slots chan struct{} // bounds how many cancel requests are on their way to upstreams
}

type keyed struct {
	upstream *core.Upstream
	key      []byte
	takeBack func() bool // cancels what the upstream does not know of yet, and reports whether there is anything
}

func newKeyring() *keyring {
	return &keyring{keys: map[string]keyed{}, slots: make(chan struct{}, 64)}
}

// add makes a key for a client: a process id and a secret, eight random bytes in all.
func (k *keyring) add(u *core.Upstream, key []byte) string {
	var own [8]byte
	_, _ = rand.Read(own[:])
	own[0] &= 0x7f // some clients print the process id as a signed number
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[string(own[:])] = keyed{upstream: u, key: key}
	return string(own[:])
}

// watch has takeBack asked before a cancel request of a client's goes to the upstream.
func (k *keyring) watch(own string, takeBack func() bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if to, ok := k.keys[own]; ok {
		to.takeBack = takeBack
		k.keys[own] = to
	}
}

func (k *keyring) remove(own string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, own)
}

// cancel passes a client's request on, if the key is known.
func (k *keyring) cancel(ctx context.Context, own []byte) {
	k.mu.Lock()
	to, ok := k.keys[string(own)]
	k.mu.Unlock()
	if !ok || to.takeBack != nil && to.takeBack() || len(to.key) == 0 {
		return
	}
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	default:
		return // a flood: the server drops them too
	}
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_ = cancelUpstream(ctx, to.upstream, to.key)
}
