package config

import (
	"strings"
	"testing"
	"time"
)

func TestRetention(t *testing.T) {
	parse := func(retention, class string) (*Config, error) {
		return Parse("weir.yaml", []byte(retention+`
archive:
  - {kind: s3, bucket: b, endpoint: "https://s3.example", object_lock: 60d}
targets:
  - {name: a, protocol: p, listen: "127.0.0.1:1", upstream: {address: "h:1"}, credential: {user: u}, retention: `+class+`}
  - {name: b, protocol: p, upstream: {address: "h:1"}, credential: {user: u}}
`))
	}
	day := 24 * time.Hour
	for _, tt := range []struct {
		retention, class string
		a, b             time.Duration
		problem          string
	}{
		{"", "default", 0, 0, ""},
		{"retention: {default: 400d}", "default", 400 * day, 400 * day, ""},
		{"retention: {default: 400d, classes: {short: 70d}}", "short", 70 * day, 400 * day, ""},
		{"retention: {classes: {short: 70d}}", "short", 70 * day, 0, ""},
		{"retention: {classes: {short: 70d}}", "shirt", 0, 0, `targets[0].retention: there is no class "shirt" in retention.classes (did you mean short?)`},
		{"retention: {classes: {short: 70d, long: 900d}}", "short", 0, 0, "retention.classes.long: would do nothing"},
		{"retention: {classes: {default: 70d}}", "default", 0, 0, "is no name of a class"},
		{"retention: {classes: {short: 1m}}", "short", 0, 0, "must be from 1h"},
	} {
		c, err := parse(tt.retention, tt.class)
		if tt.problem != "" {
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s, %s: %v", tt.retention, tt.class, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s, %s: %v", tt.retention, tt.class, err)
			continue
		}
		_, a := c.Kept("a")
		_, b := c.Kept("b")
		if _, gone := c.Kept("a target that was"); a != tt.a || b != tt.b || gone != tt.b {
			t.Errorf("%s, %s: %v, %v, %v", tt.retention, tt.class, a, b, gone)
		}
	}
	if c, err := parse("retention: {classes: {short: 30d}}", "short"); err != nil || !strings.Contains(c.Warnings[0].Text+c.Warnings[1].Text+c.Warnings[2].Text, "object_lock is") {
		t.Errorf("a lock that outlasts the class: %v, %v", err, c.Warnings)
	}
}
