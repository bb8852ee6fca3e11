package wasm

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// Bounds of what the instances of one plugin share.
const (
	maxKeys     = 65_536
	maxKey      = 256
	maxKeyValue = 64 << 10
	maxStore    = 16 << 20 // keys and values, with what they take besides
	keyOverhead = 64
	sweepEvery  = time.Second
)

// store is what the instances of one plugin share: the only state that is not an instance's own. It lives in this
// process, for as long as a plugin of its name is loaded.
type store struct {
	mu    sync.Mutex
	m     map[string]*kept
	bytes int
	swept time.Time
	now   func() time.Time
	users int // plugins of this name that are loaded; guarded by Host.mu
}

type kept struct {
	value []byte
	until time.Time // zero: for good
}

func newStore() *store { return &store{m: map[string]*kept{}, now: time.Now} }

// share takes part in what plugins of one name have in common, over reloads: their store and their gauges.
func (p *Plugin) share() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	s := p.host.stores[p.name]
	if s == nil {
		s = newStore()
		p.host.stores[p.name] = s
	}
	s.users++
	p.shared = s
	if p.manifest.Needs.KV {
		p.store = s
	}
	p.metrics.circuit.Set(0)
}

// unshare gives that up; the last one takes it along.
func (p *Plugin) unshare() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.shared == nil {
		return
	}
	if p.shared.users--; p.shared.users == 0 {
		delete(p.host.stores, p.name)
		p.metrics.forget()
	}
	p.shared = nil
}

// find returns what is kept under key and has not expired.
func (s *store) find(key []byte) *kept {
	k := s.m[string(key)]
	if k != nil && !k.until.IsZero() && !s.now().Before(k.until) {
		s.drop(string(key), k)
		return nil
	}
	return k
}

func (s *store) drop(key string, k *kept) {
	s.bytes -= len(key) + len(k.value) + keyOverhead
	delete(s.m, key)
}

// add keeps a new value under a key that is not there, if there is room.
func (s *store) add(key, value []byte, ttl time.Duration) bool {
	need := len(key) + len(value) + keyOverhead
	if len(s.m) >= maxKeys || s.bytes+need > maxStore {
		if s.sweep(); len(s.m) >= maxKeys || s.bytes+need > maxStore {
			return false
		}
	}
	s.bytes += need
	s.m[string(key)] = &kept{value, s.until(ttl)}
	return true
}

func (s *store) until(ttl time.Duration) time.Time {
	if ttl <= 0 {
		return time.Time{}
	}
	return s.now().Add(ttl)
}

// sweep drops what has expired. It looks at everything, so it does so once in a while only.
func (s *store) sweep() {
	now := s.now()
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	for key, k := range s.m {
		if !k.until.IsZero() && !now.Before(k.until) {
			s.drop(key, k)
		}
	}
}

// get copies the value of key to out if it fits, and returns its length; -1 when there is none.
func (s *store) get(key, out []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.find(key)
	if k == nil {
		return -1
	}
	if len(k.value) <= len(out) {
		copy(out, k.value)
	}
	return len(k.value)
}

// put keeps a value, or with remove takes it away. It reports whether there was room.
func (s *store) put(key, value []byte, ttl time.Duration, remove bool) bool {
	if len(key) > maxKey || len(value) > maxKeyValue {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.find(key)
	if remove {
		if was != nil {
			s.drop(string(key), was)
		}
		return true
	}
	if was != nil && len(was.value) == len(value) {
		copy(was.value, value)
		was.until = s.until(ttl)
		return true
	}
	if was != nil {
		s.drop(string(key), was)
	}
	if s.add(key, append(make([]byte, 0, len(value)), value...), ttl) {
		return true
	}
	if was != nil { // what was there stays
		s.m[string(key)] = was
		s.bytes += len(key) + len(was.value) + keyOverhead
	}
	return false
}

// incr adds to a counter, and reports whether it could.
func (s *store) incr(key []byte, delta int64, ttl time.Duration) (int64, bool) {
	if len(key) > maxKey {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.find(key)
	if k == nil {
		if !s.add(key, binary.LittleEndian.AppendUint64(nil, uint64(delta)), ttl) {
			return 0, false
		}
		return delta, delta != math.MinInt64
	}
	if len(k.value) != 8 {
		return 0, false
	}
	was := int64(binary.LittleEndian.Uint64(k.value))
	now := was + delta
	if (now > was) != (delta > 0) && delta != 0 || now == math.MinInt64 { // a counter does not go round
		return 0, false
	}
	binary.LittleEndian.PutUint64(k.value, uint64(now))
	return now, true
}

// kvCost is what a call of the store costs in fuel, besides a unit for eight bytes.
const kvCost = 256

// charge takes fuel for what the host does in the guest's name.
func (in *instance) charge(bytes uint64) {
	if in.fuel != nil {
		in.fuel.Set(in.fuel.Get() - kvCost - bytes/8)
	}
}

func lifetime(ms uint64) time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	if d := int64(ms); d > 0 && d <= most {
		return time.Duration(d) * time.Millisecond
	}
	return 0
}

func hostKVGet(in *instance, m api.Module, stack []uint64) {
	key, out := bytesOf(m, stack[0], stack[1]), bytesOf(m, stack[2], stack[3])
	n := -1
	if in.store != nil {
		in.charge(uint64(len(key)))
		if n = in.store.get(key, out); n > 0 {
			in.charge(uint64(n))
		}
	}
	stack[0] = uint64(uint32(int32(n)))
}

func hostKVPut(in *instance, m api.Module, stack []uint64) {
	key := bytesOf(m, stack[0], stack[1])
	remove := uint32(stack[3]) == nullCell
	var value []byte
	if !remove {
		value = bytesOf(m, stack[2], stack[3])
	}
	ttl := lifetime(stack[4])
	stack[0] = uint64(uint32(0xffffffff)) // -1
	if in.store != nil {
		in.charge(uint64(len(key) + len(value)))
		if in.store.put(key, value, ttl, remove) {
			stack[0] = 0
		}
	}
}

func hostKVIncr(in *instance, m api.Module, stack []uint64) {
	key, delta, ttl := bytesOf(m, stack[0], stack[1]), int64(stack[2]), lifetime(stack[3])
	least := int64(math.MinInt64)
	stack[0] = uint64(least)
	if in.store != nil {
		in.charge(uint64(len(key)))
		if n, ok := in.store.incr(key, delta, ttl); ok {
			stack[0] = uint64(n)
		}
	}
}
