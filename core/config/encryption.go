package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/keyring"
)

// Encryption says for whom recordings are encrypted. Without it they are not.
type Encryption struct {
	// Recipients may each read what is recorded: local, which is a key that is made in Data at the first start; a public key
	// of age (age1…); vault:MOUNT/NAME, a key of the transit engine of the Vault that the file names.
	Recipients []string `yaml:"recipients"`
	// Identities are files of private keys, in the form of age-keygen, that this process may read with. The local one need
	// not be named.
	Identities []string `yaml:"identities"`
	// Period is for how long a recording key is used for sessions that begin; a subject's last ones can be shredded a minute
	// after it. Default 1h.
	Period time.Duration `yaml:"period"`
}

// What a recording key's period may be, and is.
const (
	leastPeriod   = time.Second
	mostPeriod    = 24 * time.Hour
	defaultPeriod = time.Hour
)

// RecipientLocal is the key that is made in Data.
const RecipientLocal = "local"

// On reports whether recordings are encrypted.
func (e *Encryption) On() bool { return len(e.Recipients) > 0 }

// TransitKey returns the name of a Vault's transit key, MOUNT/NAME, where the recipient is one.
func TransitKey(recipient string) (key string, ok bool) {
	key, ok = strings.CutPrefix(recipient, "vault:")
	mount, name, found := strings.Cut(key, "/")
	return key, ok && found && nameShape.MatchString(mount) && nameShape.MatchString(name)
}

func (k *checker) encryption() {
	e := &k.Encryption
	if k.set("encryption") && !e.On() {
		k.problem("encryption", "name them, such as recipients: [local]", "has no recipients, so nothing would be encrypted")
	}
	if e.Period == 0 && !k.set("encryption.period") {
		e.Period = defaultPeriod
	}
	if e.Period < leastPeriod || e.Period > mostPeriod {
		k.problem("encryption.period", "for how long one key is used, from 1s to 1d; default 1h", "is %v", e.Period)
	}
	reads := len(e.Identities) > 0
	seen := map[string]bool{}
	for i, r := range e.Recipients {
		at := fmt.Sprintf("encryption.recipients[%d]", i)
		switch {
		case seen[r]:
			k.problem(at, "", "stands twice")
		case r == RecipientLocal:
			if reads = true; k.Journal.NATS.URL != "" {
				k.warn(at, "give all of them the same file keys/recordings.key, or name a public key and its file in identities", "is a key of each process's own, and others read the archive, too")
			}
		case strings.HasPrefix(r, "vault:"):
			if _, ok := TransitKey(r); !ok {
				k.problem(at, "vault:MOUNT/NAME, such as vault:transit/weir", "names no key of a Vault's transit engine")
			}
			if k.Vault.Address == "" {
				k.problem(at, "set vault.address and vault.token", "is in a Vault, and the file names none")
			}
			reads = true
		default:
			if _, err := keyring.ParseRecipient(r); err != nil {
				k.problem(at, "local, age1… or vault:MOUNT/NAME", "%v", strings.TrimPrefix(err.Error(), "keyring: "))
			}
		}
		seen[r] = true
	}
	if e.On() && !reads && len(k.Retention.Classes) > 0 {
		k.problem("retention.classes", "add local, or leave the classes out", "cannot be told of sessions that this process cannot read: none of encryption.recipients is its own")
	}
	if e.On() && !reads {
		k.warn("encryption.recipients", "the index will list sessions without whose they are and what they did; read them elsewhere, with --identity", "none of them is this process's own")
	}
	for i, path := range e.Identities {
		e.Identities[i] = k.Path(path)
	}
}
