package config

// Ledger says where the key is that the log of seals is signed with.
type Ledger struct {
	// Key is vault:MOUNT/NAME, a key of the type ed25519 of the transit engine of the Vault that the file names. Default: one
	// that is made in Data. A log that is there goes on with its key until weir keys rotate-ledger.
	Key string `yaml:"key"`
}

func (k *checker) ledger() {
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
