package config

import (
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

func TestEncryption(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	public := id.Recipient().String()
	for text, problem := range map[string]string{
		"encryption: {recipients: [local]}":                                          "",
		"encryption: {recipients: [" + public + ", local], identities: [k, /abs/k]}": "",
		"encryption: {recipients: [" + public + "]}":                                 "warning: none of them is this process's own",
		"encryption: {recipients: [local], period: 10s}":                             "",
		"encryption: {recipients: [local], period: 0s}":                              "is 0s",
		"encryption: {recipients: [local], period: 2d}":                              "is 48h0m0s",
		"encryption: {}":                                                                        "nothing would be encrypted",
		"encryption: {identities: [k]}":                                                         "nothing would be encrypted",
		"encryption: {recipients: [local, local]}":                                              "stands twice",
		"encryption: {recipients: [remote]}":                                                    "it is no public key of age",
		"encryption: {recipients: [" + id.String() + "]}":                                       "it is no public key of age",
		"encryption: {recipients: [\"vault:transit/weir\"]}":                                    "the file names none",
		"encryption: {recipients: [\"vault:weir\"]}\n" + someVault:                              "names no key of a Vault's transit engine",
		"encryption: {recipients: [\"vault:transit/weir\"]}\n" + someVault:                      "",
		"encryption: {recipients: [" + public + "]}\nretention: {classes: {short: 30d}}":        "cannot be told of sessions that this process cannot read",
		"encryption: {recipients: [" + public + ", local]}\nretention: {classes: {short: 30d}}": "",
		"ledger: {key: \"vault:transit/log\"}\n" + someVault:                                    "",
		"ledger: {key: \"vault:transit/log\"}":                                                  "the file names none",
		"ledger: {key: \"transit/log\"}\n" + someVault:                                          "names no key of a Vault's transit engine",
		"encryption: {recipients: [local]}\njournal: {nats: {url: \"nats://n:4222\"}}":          "warning: is a key of each process's own",
	} {
		class := ""
		if strings.Contains(text, "short") {
			class = ", retention: short"
		}
		c, err := Parse("dir/weir.yaml", []byte(text+"\ntargets:\n  - {name: a, protocol: p, listen: \"127.0.0.1:1\", upstream: {address: \"h:1\"}, credential: {user: u}"+class+"}\n"))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			for _, w := range c.Warnings {
				got += "warning: " + w.Text + "\n"
			}
		}
		if problem == "" && err != nil || !strings.Contains(got, problem) || strings.Contains(got, id.String()) {
			t.Errorf("%s:\n%s", text, got)
		}
		if err == nil && len(c.Encryption.Identities) == 2 && (c.Encryption.Identities[0] != filepath.Join(c.Dir, "k") || c.Encryption.Identities[1] != "/abs/k") {
			t.Errorf("%q", c.Encryption.Identities)
		}
	}
}

const someVault = "vault: {address: \"https://vault:8200\", token: \"${env:T}\"}"
