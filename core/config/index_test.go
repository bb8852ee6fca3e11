package config

import (
	"strings"
	"testing"
)

func TestIndex(t *testing.T) {
	const good = `index: {postgres: {address: "db:5432", database: d, user: u, password: "${env:P}"}}`
	for text, problem := range map[string]string{
		good: "",
		`index: {postgres: {address: "db:5432", database: d, user: "${vault:a#b}", password: "${vault:a#c}", schema: s, tls: verify-ca}}`: "",
		"index: {}":                                               "names no database",
		"index: {postgres: {database: d}}":                        "names no database",
		strings.Replace(good, "database: d, ", "", 1):             "has no database",
		strings.Replace(good, "user: u, ", "", 1):                 "has no user",
		strings.Replace(good, "db:5432", "db", 1):                 "is not host:port",
		strings.Replace(good, "db:5432", ":5432", 1):              "has no host",
		strings.Replace(good, "}}", ", schema: public}}", 1):      "cannot be the index's schema",
		strings.Replace(good, "}}", ", tls: verify}}", 1):         "is not disable, require",
		strings.Replace(good, "}}", ", tls: disable}}", 1):        "warning: the credential, and what the index takes in",
		strings.Replace(good, "}}", ", tls: require}}", 1):        "warning: require checks no certificate",
		strings.Replace(good, "}}", ", tls: disable, ca: c}}", 1): "would do nothing",
		strings.Replace(good, "${env:P}", "hunter2", 1):           "warning: holds a secret in clear",
		strings.Replace(good, "}}", ", sslmode: prefer}}", 1):     "unknown key",
		good + "\nencryption: {recipients: [local]}":              "warning: holds what commands and answers say",
	} {
		c, err := Parse("dir/weir.yaml", []byte(text+"\ntargets:\n  - {name: a, protocol: p, listen: \"127.0.0.1:1\", upstream: {address: \"h:1\"}, credential: {user: u}}\n"))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			for _, w := range c.Warnings {
				got += "warning: " + w.Text + "\n"
			}
		}
		if problem == "" && err != nil || !strings.Contains(got, problem) || strings.Contains(got, "hunter2") {
			t.Errorf("%s:\n%s", text, got)
		}
	}
}
