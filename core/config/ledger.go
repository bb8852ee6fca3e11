package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/weir-gateway/weir/core/download"
	"github.com/weir-gateway/weir/core/ledger"
)

// Ledger says where the key is that the log of seals is signed with, and who witnesses the log.
type Ledger struct {
	// Key is vault:MOUNT/NAME, a key of the type ed25519 of the transit engine of the Vault that the file names. Default: one
	// that is made in Data. A log that is there goes on with its key until weir keys rotate-ledger.
	Key string `yaml:"key"`
	// Witnesses are sent the log's checkpoints, and cosign them.
	Witnesses []Witness `yaml:"witnesses"`
	// Quorum is how many of them have to cosign; when fewer do, that is told and stops nothing. Default: all.
	Quorum int `yaml:"quorum"`
}

// Witness is somebody else who sees that the log only ever grows (C2SP tlog-witness).
type Witness struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"` // what /add-checkpoint is put behind
	Key  string `yaml:"key"` // its verifier key, of the type cosignature/v1 with Ed25519
}

// maxWitnesses bounds ledger.witnesses.
const maxWitnesses = 16

func (k *checker) ledger() {
	k.witnesses()
	if k.Ledger.Key == "" {
		return
	}
	if _, ok := TransitKey(k.Ledger.Key); !ok {
		k.problem("ledger.key", "vault:MOUNT/NAME, such as vault:transit/weir-log", "names no key of a Vault's transit engine")
	}
	if k.Vault.Address == "" {
		k.problem("ledger.key", "set vault.address and vault.token", "is in a Vault, and the file names none")
	}
}

func (k *checker) witnesses() {
	l := &k.Ledger
	if k.set("ledger.witnesses") && len(l.Witnesses) == 0 {
		k.problem("ledger.witnesses", "name one, or leave the key out", "names nobody")
	}
	if len(l.Witnesses) > maxWitnesses {
		k.problem("ledger.witnesses", "", "are %d; there may be %d", len(l.Witnesses), maxWitnesses)
		return
	}
	names, keys := map[string]bool{}, map[int]*ledger.Witness{}
	for i := range l.Witnesses {
		w, at := &l.Witnesses[i], fmt.Sprintf("ledger.witnesses[%d]", i)
		k.name(at, w.Name, names)
		if text := witnessURL(w.URL); text != "" {
			k.problem(at+".url", `such as "https://witness.example/weir"; add-checkpoint is put behind it`, "%s", text)
		}
		if w.Key == "" {
			k.problem(at, "key: the verifier key that the witness publishes", "has no key")
			continue
		}
		key, err := ledger.ParseWitness(w.Key)
		if err != nil {
			k.problem(at+".key", "", "%s", strings.TrimPrefix(err.Error(), "ledger: "))
			continue
		}
		for other, seen := range keys {
			if seen.Same(key) || seen.KeyHash() == key.KeyHash() {
				k.problem(at+".key", "a witness counts once", "is that of %s", l.Witnesses[other].Name)
			}
		}
		keys[i] = key
	}
	switch {
	case len(l.Witnesses) == 0 && k.set("ledger.quorum"):
		k.problem("ledger.quorum", "name ledger.witnesses, or leave it out", "does nothing without witnesses")
	case len(l.Witnesses) == 0:
	case !k.set("ledger.quorum"):
		l.Quorum = len(l.Witnesses)
	case l.Quorum < 1 || l.Quorum > len(l.Witnesses):
		k.problem("ledger.quorum", fmt.Sprintf("how many must cosign, from 1 to %d", len(l.Witnesses)), "is %d, and there are %d witnesses", l.Quorum, len(l.Witnesses))
	}
}

// witnessURL says what is wrong with the URL of a witness.
func witnessURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is no https:// URL"
	case u.User != nil:
		return "holds a secret in clear"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "has more than scheme, host, port and path"
	}
	if err := download.Safe(u); err != nil {
		return err.Error()
	}
	return ""
}
