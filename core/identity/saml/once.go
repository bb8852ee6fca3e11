package saml

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core/identity"
)

// Bucket is where gateways that share a JetStream keep what must happen once: which assertions they have taken, and what
// waits to be fetched. There is no token in it.
const Bucket = "weir_sign_ins"

const (
	callTime  = 5 * time.Second
	keepFor   = time.Hour // longer than any request can be answered: an assertion without a good request is worth nothing
	maxBucket = 64 << 20
)

// once is what happens once, whichever gateway is asked.
type once struct {
	js       jetstream.JetStream
	replicas int
	now      func() time.Time

	mu sync.Mutex
	kv jetstream.KeyValue
}

// errStore is told to nobody but the log.
var errStore = errors.New("saml: what was used already cannot be told: JetStream does not answer as it should")

func (o *once) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kv != nil {
		return o.kv, nil
	}
	kv, err := o.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: Bucket, Description: "Weir: sign-ins by SAML that were used", History: 1, TTL: keepFor,
		MaxBytes: maxBucket, MaxValueSize: 128 << 10, Storage: jetstream.FileStorage, Replicas: o.replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	o.kv = kv
	return kv, nil
}

// lost has the bucket looked for anew: somebody may have deleted it.
func (o *once) lost(err error) error {
	o.mu.Lock()
	o.kv = nil
	o.mu.Unlock()
	return fmt.Errorf("%w: %w", errStore, err)
}

// use marks keys as used. It refuses when one of them was.
func (o *once) use(ctx context.Context, keys ...string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	kv, err := o.bucket(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		_, err := kv.Create(ctx, k, nil)
		if errors.Is(err, jetstream.ErrKeyExists) {
			return refuse("replay", "the assertion, or an answer to this sign-in, was used before")
		}
		if err != nil {
			return o.lost(err)
		}
	}
	return nil
}

// waiting is what a code stands for until its token is fetched.
type waiting struct {
	Provider  string         `json:"provider"`
	Issuer    string         `json:"issuer"`
	Challenge []byte         `json:"challenge"`
	Grant     identity.Grant `json:"grant"`
	Until     time.Time      `json:"until"`   // the end of the session at the provider; zero: not said
	Expires   time.Time      `json:"expires"` // of the code
}

// put keeps w and returns its code.
func (o *once) put(ctx context.Context, w *waiting) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	kv, err := o.bucket(ctx)
	if err != nil {
		return "", err
	}
	var secret [24]byte
	_, _ = rand.Read(secret[:]) // never fails
	code := base64.RawURLEncoding.EncodeToString(secret[:])
	b, err := json.Marshal(w)
	if err != nil {
		return "", err
	}
	if _, err := kv.Create(ctx, "code."+digest(code), b); err != nil {
		return "", o.lost(err)
	}
	return code, nil
}

// take returns what a code stands for, to one caller.
func (o *once) take(ctx context.Context, code string) (*waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	kv, err := o.bucket(ctx)
	if err != nil {
		return nil, err
	}
	key := "code." + digest(code)
	none := refuse("code", "the code is unknown, was used before or has expired")
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, none
	}
	if err != nil {
		return nil, o.lost(err)
	}
	if err := kv.Delete(ctx, key, jetstream.LastRevision(e.Revision())); err != nil { // somebody else was faster
		return nil, none
	}
	var w waiting
	if json.Unmarshal(e.Value(), &w) != nil || !o.now().Before(w.Expires) {
		return nil, none
	}
	return &w, nil
}
