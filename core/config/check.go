package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// checker looks at a decoded file as a whole.
type checker struct {
	*Config
	d *decoder
}

func check(c *Config, d *decoder) {
	k := &checker{c, d}
	k.listen()
	k.identity()
	k.vault()
	k.journal()
	k.steps()
	k.targets()
	k.listeners()
	k.proxies()
	sort.SliceStable(c.Warnings, func(i, j int) bool { return c.Warnings[i].Line < c.Warnings[j].Line })
}

func (k *checker) problem(path, hint, format string, args ...any) {
	k.d.problem(k.Line(path), path, hint, format, args...)
}

func (k *checker) warn(path, hint, format string, args ...any) {
	k.Warnings = append(k.Warnings, k.Problem(path, fmt.Sprintf(format, args...), hint))
}

func (k *checker) set(path string) bool { _, ok := k.lines[path]; return ok }

// maxLock bounds listen.lock.
const maxLock = 24 * time.Hour

func (k *checker) listen() {
	if host, ok := k.address("listen.admin", k.Listen.Admin); ok && !loopback(host) {
		k.problem("listen.admin", "use 127.0.0.1", "must be on loopback: this build has no sign-in for it")
	}
	if d := k.Listen.Lock; d > maxLock {
		k.problem("listen.lock", "such as 15m", "is longer than %s", maxLock)
	}
	if t := k.Listen.TLS; (t.Cert == "") != (t.Key == "") {
		k.problem("listen.tls", "leave both out for a certificate of the local CA", "needs both cert and key")
	}
}

// address checks host:port and returns the host.
func (k *checker) address(path, address string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		k.problem(path, "", "%q is not host:port", address)
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || (n == 0 && !strings.HasPrefix(path, "listen") && !strings.HasSuffix(path, "listen")) {
		k.problem(path, "", "%q is not a port", port)
		return "", false
	}
	return host, true
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (k *checker) journal() {
	k.promise("journal.promise", k.Journal.Promise)
	if n := k.Journal.NATS; n.URL != "" {
		for _, part := range strings.Split(n.URL, ",") {
			u, err := url.Parse(strings.TrimSpace(part))
			if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				k.problem("journal.nats.url", "", "is not a nats:// or tls:// URL")
			} else if u.User != nil {
				k.warn("journal.nats.url", "use creds", "holds a secret in clear")
			}
		}
		if n.Replicas < 0 || n.Replicas > 5 {
			k.problem("journal.nats.replicas", "", "must be from 1 to 5")
		}
	}
	if k.set("archive") && len(k.Archive) == 0 {
		k.problem("archive", "leave the key out for one in data", "names no store: nothing would be kept")
	}
	k.checkArchive()
	k.retention()
	k.encryption()
	k.ledger()
	k.index()
}

func (k *checker) promise(path string, p core.Promise) {
	words := []string{string(core.PromiseStrict), string(core.PromiseBounded), string(core.PromiseOff)}
	if !slices.Contains(words, string(p)) {
		k.problem(path, hintNearest(string(p), words), "%q is not strict, bounded or off", p)
	}
}

var nameShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (k *checker) name(at, name string, seen map[string]bool) {
	switch {
	case name == "":
		k.problem(at, "", "has no name")
	case !nameShape.MatchString(name):
		k.problem(at+".name", "letters, digits, dot, dash and underscore, at most 63", "%q cannot be a name", name)
	case seen[name]:
		k.problem(at+".name", "", "%q stands twice", name)
	}
	seen[name] = true
}

func (k *checker) steps() {
	steps := map[string]bool{}
	for i, p := range k.Policies {
		at := fmt.Sprintf("policies[%d]", i)
		k.name(at, p.Name, steps)
		k.onError(at, p.OnError)
		k.engine(at, p.Engine)
		switch {
		case p.Path == "":
			k.problem(at, "a directory, a bundle .tar.gz, its https:// URL, or builtin:NAME", "has no path")
		case p.Key != "" && !strings.Contains(p.Path, "://") && !strings.HasSuffix(p.Path, ".tar.gz") && !strings.HasSuffix(p.Path, ".tgz"):
			k.problem(at+".key", "leave it out, or name a bundle .tar.gz", "would do nothing: only bundles are signed")
		case !strings.Contains(p.Path, "://") && !p.Token.IsZero():
			k.problem(at+".token", "", "would do nothing: the bundle is not fetched")
		case strings.Contains(p.Path, "://") && p.Poll < time.Second:
			k.problem(at+".poll", "such as 60s", "is less than a second")
		}
		if p.Rollback != "" && !strings.Contains(p.Path, "://") {
			k.problem(at+".rollback", "", "would do nothing: the policy is not fetched")
		}
		switch {
		case p.Key != "" && p.Algorithm == "":
			k.problem(at, "such as algorithm: ES256", "has a key and no algorithm")
		case p.Key == "" && p.Algorithm != "":
			k.problem(at+".algorithm", "add key", "would do nothing: there is no key")
		case p.Algorithm != "" && !slices.Contains(signatures, p.Algorithm):
			k.problem(at+".algorithm", hintNearest(p.Algorithm, signatures), "%q is no signature by a key pair", p.Algorithm)
		}
	}
	for i, p := range k.Plugins {
		at := fmt.Sprintf("plugins[%d]", i)
		k.name(at, p.Name, steps)
		k.onError(at, p.OnError)
		k.plugin(at, &p)
	}
	used := map[string]bool{}
	k.chain("chain", k.Chain, steps, used)
	k.admin(steps, used)
	own := 0
	for i := range k.Targets {
		t := &k.Targets[i]
		if t.Chain != nil {
			own++
			k.chain(t.At("chain"), *t.Chain, steps, used)
		}
		if len(t.Steps()) == 0 {
			k.warn(t.At(""), "add a chain", "has no chain: whoever can sign in may do anything; it is only recorded")
		}
	}
	if len(k.Chain) > 0 && own == len(k.Targets) && own > 0 {
		k.problem("chain", "", "would do nothing: every target has a chain of its own")
	}
	for i, p := range k.Policies {
		if p.Name != "" && !used[p.Name] {
			k.problem(fmt.Sprintf("policies[%d]", i), "add it to a chain, or remove it", "%q is in no chain: it would do nothing", p.Name)
		}
	}
	for i, p := range k.Plugins {
		if p.Name != "" && !used[p.Name] {
			k.problem(fmt.Sprintf("plugins[%d]", i), "add it to a chain, or remove it", "%q is in no chain: it would do nothing", p.Name)
		}
	}
}

// signatures are the algorithms of signatures that a public key can check. With one of the others whoever can check could
// sign as well.
var signatures = []string{"ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

func (k *checker) onError(at, word string) {
	if word != "" && word != "deny" && word != "pass" {
		k.problem(at+".on_error", hintNearest(word, []string{"deny", "pass"}), "%q is not deny or pass", word)
	}
}

func (k *checker) engine(at, word string) {
	if known := []string{"auto", "topdown", "wasm"}; word != "" && !slices.Contains(known, word) {
		k.problem(at+".engine", hintNearest(word, known), "%q is not auto, topdown or wasm", word)
	}
}

func (k *checker) chain(at string, chain []string, steps, used map[string]bool) {
	here := map[string]bool{}
	for i, s := range chain {
		switch path := fmt.Sprintf("%s[%d]", at, i); {
		case !steps[s]:
			k.problem(path, hintNearest(s, sortedKeys(steps)), "there is no policy or plugin %q", s)
		case here[s]:
			k.problem(path, "", "%q stands twice", s)
		}
		here[s], used[s] = true, true
	}
}

func (k *checker) targets() {
	if len(k.Targets) == 0 {
		k.problem("targets", "", "there are none: nothing would be served")
	}
	seen := map[string]bool{}
	for i := range k.Targets {
		t := &k.Targets[i]
		k.name(t.At(""), t.Name, seen)
		if t.Protocol == "" {
			k.problem(t.At(""), "", "has no protocol")
		}
		k.upstream(t)
		if t.Credential.User == "" && t.Credential.Password.IsZero() && !k.set(t.At("credential")) {
			k.problem(t.At(""), "credential: {user: …, password: \"${env:…}\"}", "has no credential")
		}
		k.credential(t)
		if core.ParseLevel(t.Record) == core.LevelUnset {
			words := []string{"full", "metadata", "off"}
			k.problem(t.At("record"), hintNearest(t.Record, words), "%q is not full, metadata or off", t.Record)
		}
		if k.set(t.At("promise")) {
			k.promise(t.At("promise"), t.Promise)
		}
		k.hold(t)
		k.expiry(t)
		known, _ := fieldsOf(typeOfTarget)
		for _, key := range sortedKeys(t.Rest) {
			if key != t.Protocol {
				k.problem(t.At(key), hintNearest(key, append(names(known), t.Protocol)), "unknown key")
			}
		}
	}
}

func (k *checker) upstream(t *Target) {
	u := &t.Upstream
	if u.Address == "" {
		k.problem(t.At("upstream"), "", "has no address")
		return
	}
	unix := strings.HasPrefix(u.Address, "/")
	if !unix {
		if host, ok := k.address(t.At("upstream.address"), u.Address); ok && host == "" {
			k.problem(t.At("upstream.address"), "", "%q has no host", u.Address)
		}
	}
	words := []string{string(core.TLSDisable), string(core.TLSRequire), string(core.TLSVerifyCA), string(core.TLSVerifyFull)}
	switch {
	case !slices.Contains(words, string(u.TLS)):
		k.problem(t.At("upstream.tls"), hintNearest(string(u.TLS), words), "%q is not disable, require, verify-ca or verify-full", u.TLS)
	case u.TLS == core.TLSDisable:
		for _, key := range []string{"ca", "server_name", "cert", "key"} {
			if k.set(t.At("upstream." + key)) {
				k.problem(t.At("upstream."+key), "", "would do nothing: tls is disable")
			}
		}
		if host, _, _ := net.SplitHostPort(u.Address); !unix && host != "" && !loopback(host) {
			k.warn(t.At("upstream.tls"), "use verify-full", "the credential and all data go to %s in clear", u.Address)
		}
	case u.TLS == core.TLSRequire:
		if k.set(t.At("upstream.ca")) {
			k.problem(t.At("upstream.ca"), "use verify-ca or verify-full", "would do nothing: require checks no certificate")
		}
		k.warn(t.At("upstream.tls"), "use verify-full", "require checks no certificate: anybody in between can read along")
	}
	if (u.Cert == "") != (u.Key == "") {
		k.problem(t.At("upstream"), "", "needs both cert and key")
	}
}

// listeners checks that no two things want one address.
func (k *checker) listeners() {
	type owner struct{ at, host, port, protocol string }
	var owners []owner
	add := func(at, address, protocol string) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "0" { // said already, or any free port
			return
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		for _, o := range owners {
			same := o.host == host || everywhere(o.host) || everywhere(host)
			switch {
			case o.port != port || !same:
			case o.protocol == "" || protocol == "":
				k.problem(at, "", "%s is taken by %s", address, o.at)
				return
			case o.protocol != protocol:
				k.problem(at, "give it another port", "%s is taken by %s, which speaks %s", address, o.at, o.protocol)
				return
			case o.host != host:
				k.problem(at, "write the same address", "%s overlaps with %s", address, o.at)
				return
			}
		}
		owners = append(owners, owner{at, host, port, protocol})
	}
	add("listen.admin", k.Listen.Admin, "")
	add("listen.sign_in.address", k.Listen.SignIn.Address, "")
	listening := map[string]bool{}
	for i := range k.Targets {
		t := &k.Targets[i]
		if t.Listen == "" {
			continue
		}
		listening[t.Protocol] = true
		if _, ok := k.address(t.At("listen"), t.Listen); ok {
			add(t.At("listen"), t.Listen, t.Protocol)
		}
	}
	for i := range k.Targets {
		if t := &k.Targets[i]; t.Listen == "" && t.Protocol != "" && !listening[t.Protocol] {
			k.problem(t.At(""), "give one target of the protocol a listen: host:port", "cannot be reached: no listener speaks %s", t.Protocol)
		}
	}
}

func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || (ip != nil && ip.IsUnspecified())
}

func sortedKeys[V interface{}](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
