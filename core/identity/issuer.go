package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weir-gateway/weir/core"
)

// What the gateway's own tokens say of themselves.
const (
	ServiceIssuer   = "weir" // in iss
	serviceAudience = "weir"
	keyFile         = "tokens.key"
	// MaxTTL is how long a service token may be valid unless the configuration says otherwise.
	MaxTTL = 24 * time.Hour
)

// Kinds of identity.
var kinds = []string{"human", "service", "agent"}

// Issuer signs and recognises the gateway's own tokens: Ed25519 JWTs for loops without an identity provider.
type Issuer struct {
	key    ed25519.PrivateKey
	kid    string
	signer jose.Signer
	maxTTL time.Duration
	dir    string
}

// Grant is what a service token is made for.
type Grant struct {
	Subject string
	Groups  []string
	Kind    string        // "service" (default), "agent" or "human"
	Run     string        // the run that its sessions belong to
	Targets []string      // the only targets it is good for; none: all
	TTL     time.Duration // default: one hour
}

// OpenIssuer uses the signing key in dir and makes it (mode 0600, the folder 0700) if there is none yet.
// maxTTL 0 means MaxTTL; it bounds tokens when they are made, and again when they are shown.
func OpenIssuer(dir string, maxTTL time.Duration) (*Issuer, error) {
	if maxTTL <= 0 {
		maxTTL = MaxTTL
	}
	key, err := loadKey(filepath.Join(dir, keyFile))
	if errors.Is(err, os.ErrNotExist) {
		if err = makeKey(dir); err == nil {
			key, err = loadKey(filepath.Join(dir, keyFile))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	i := &Issuer{key: key, kid: base64.RawURLEncoding.EncodeToString(sum[:12]), maxTTL: maxTTL, dir: dir}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", i.kid))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return i, nil
}

func loadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and think about who has read it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s is not a PEM private key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an Ed25519 key", path)
	}
	return ed, nil
}

// makeKey writes a new key. Of two processes that do so at a time one wins, and both use its key.
func makeKey(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), filepath.Join(dir, keyFile)); errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

var runShape = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// Issue signs a token and enters it into the list of those that were made: what is not listed is not given out.
func (i *Issuer) Issue(g Grant) (Issued, error) {
	t, err := i.issue(g, time.Now())
	if err != nil {
		return Issued{}, err
	}
	if err := i.enter(&t); err != nil {
		return Issued{}, fmt.Errorf("identity: the token cannot be entered into the list of tokens: %w", err)
	}
	return t, nil
}

func (i *Issuer) issue(g Grant, now time.Time) (Issued, error) { return i.make(g, now, nil) }

func (i *Issuer) make(g Grant, now time.Time, acting *actingFor) (Issued, error) {
	if g.TTL == 0 {
		g.TTL = min(time.Hour, i.maxTTL)
	}
	if g.Kind == "" {
		g.Kind = "service"
	}
	var problem string
	switch {
	case g.Subject == "" || len(g.Subject) > maxSubject:
		problem = "a token needs a subject"
	case g.TTL < 0:
		problem = "a token cannot expire before it was made"
	case g.TTL > i.maxTTL:
		problem = fmt.Sprintf("%s is longer than a service token may be valid (identity.service_tokens.max_ttl is %s)", g.TTL, i.maxTTL)
	case !slices.Contains(kinds, g.Kind):
		problem = fmt.Sprintf("the kind %q is not human, service or agent", g.Kind)
	case g.Run != "" && !runShape.MatchString(g.Run):
		problem = "a run is letters, digits, dot, colon, dash and underscore, at most 128"
	case len(g.Groups) > maxGroups:
		problem = fmt.Sprintf("a token holds at most %d groups", maxGroups)
	}
	if problem != "" {
		return Issued{}, core.Refusal("identity: " + problem)
	}
	now = now.Truncate(time.Second)
	expires := now.Add(g.TTL)
	id := core.NewID(now)
	token, err := i.sign(claimSet{
		ServiceIssuer, g.Subject, serviceAudience, g.Groups, g.Kind, g.Run, g.Targets, now.Unix(), expires.Unix(), id, acting,
	})
	if err != nil {
		return Issued{}, err
	}
	if len(token) > MaxToken {
		return Issued{}, fmt.Errorf("identity: the token would be larger than %d KiB", MaxToken>>10)
	}
	return Issued{
		Token: token, ID: id, Subject: g.Subject, Groups: g.Groups, Kind: g.Kind, Run: g.Run, Targets: g.Targets, Issued: now.UTC(), Expires: expires.UTC(),
	}, nil
}

// claimSet is the payload of a token of this gateway.
type claimSet struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Groups   []string `json:"groups,omitempty"`
	Kind     string   `json:"kind"`
	Run      string   `json:"run,omitempty"`
	Targets  []string `json:"targets,omitempty"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	ID       string   `json:"jti"`

	For *actingFor `json:"for,omitempty"`
}

func (i *Issuer) sign(c claimSet) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	jws, err := i.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	return token, nil
}

// verify recognises a token of this gateway.
func (i *Issuer) verify(t *token, now time.Time) (core.Identity, error) {
	c, err := i.claims(t, serviceAudience, now)
	if err != nil {
		return core.Identity{}, err
	}
	if !c.hasIssued || c.id == "" || c.expires.Sub(c.issued) > i.maxTTL {
		return core.Identity{}, refuse("ttl", "the token is valid for longer than this gateway allows (%s)", i.maxTTL)
	}
	id := core.Identity{Subject: c.subject, Issuer: ServiceIssuer, Token: c.id, Expires: c.expires, Groups: []string{}}
	id.Kind, _ = c.all["kind"].(string)
	id.Run, _ = c.all["run"].(string)
	for name, list := range map[string]*[]string{"groups": &id.Groups, "targets": &id.Targets} {
		if x, ok := c.all[name]; ok {
			if *list, ok = texts(x); !ok {
				return core.Identity{}, refuse("malformed", "the token's claim %s is not a list of texts", name)
			}
		}
	}
	if !slices.Contains(kinds, id.Kind) {
		return core.Identity{}, refuse("malformed", "the token names no kind")
	}
	if x, ok := c.all["for"]; ok { // a run's: policies see who began it, as the provider says it
		m, is := x.(map[string]any)
		if id.Issuer, _ = m["iss"].(string); !is || id.Issuer == "" {
			return core.Identity{}, refuse("malformed", "the token does not say for whom it is")
		}
		id.Parent, _ = m["jti"].(string)
		id.Claims, _ = m["claims"].(map[string]any)
	}
	return id, nil
}

// claims returns what a token says that this gateway signed for an audience.
func (i *Issuer) claims(t *token, audience string, now time.Time) (*claims, error) {
	if t.alg != jose.EdDSA || t.kid != i.kid {
		return nil, refuse("key", "the token was not signed by this gateway")
	}
	payload, err := t.jws.Verify(i.key.Public())
	if err != nil {
		return nil, refuse("signature", "the token was not signed by this gateway")
	}
	c, err := read(payload)
	if err != nil {
		return nil, err
	}
	return c, c.check(ServiceIssuer, audience, now)
}
