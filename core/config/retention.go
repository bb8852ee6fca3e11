package config

import (
	"slices"
	"time"
)

// Retention says how long sessions are kept from their end on. Without it they are kept for good.
type Retention struct {
	Default time.Duration            `yaml:"default"` // of the targets that name no class; 0: for good
	Classes map[string]time.Duration `yaml:"classes"`
}

// ClassDefault is the class of targets that name none, and of those that the file does not know any more.
const ClassDefault = "default"

// mostKept bounds a class.
const mostKept = mostLock

// leastKept bounds a class as well: less than an hour is a slip of the pen, and what is removed does not come back. The build
// that make torture breaks has less, or nothing would be removed while it runs.
var leastKept = "1h"

// Kept returns the retention class of a target's sessions, and for how long they are kept; 0: for good.
func (c *Config) Kept(target string) (class string, keep time.Duration) {
	for i := range c.Targets {
		if t := &c.Targets[i]; t.Name == target && t.Retention != "" && t.Retention != ClassDefault {
			return t.Retention, c.Retention.Classes[t.Retention]
		}
	}
	return ClassDefault, c.Retention.Default
}

// Removes reports whether anything is ever removed.
func (r *Retention) Removes() bool { return r.Default > 0 || len(r.Classes) > 0 }

func (k *checker) retention() {
	least, err := ParseDuration(leastKept)
	if err != nil {
		panic(err) // the linker was given it
	}
	bound := func(path string, d time.Duration) {
		if d < least || d > mostKept {
			k.problem(path, "such as 400d", "must be from %s to 36500d", leastKept)
		}
		for i := range k.Archive {
			if lock := k.Archive[i].ObjectLock; lock > d {
				k.warn(path, "", "sessions stay in the bucket for longer than that: object_lock is %s", lock)
			}
		}
	}
	if k.set("retention.default") {
		bound("retention.default", k.Retention.Default)
	}
	words := append(sortedKeys(k.Retention.Classes), ClassDefault)
	used := map[string]bool{}
	for i := range k.Targets {
		t := &k.Targets[i]
		if used[t.Retention] = true; t.Retention != "" && !slices.Contains(words, t.Retention) {
			k.problem(t.At("retention"), hintNearest(t.Retention, words), "there is no class %q in retention.classes", t.Retention)
		}
	}
	for _, class := range sortedKeys(k.Retention.Classes) {
		at := "retention.classes." + class
		bound(at, k.Retention.Classes[class])
		switch {
		case class == ClassDefault:
			k.problem(at, "write it as retention.default", "is no name of a class")
		case !nameShape.MatchString(class):
			k.problem(at, "letters, digits, dot, dash and underscore, at most 63", "%q cannot be a name", class)
		case !used[class]:
			k.problem(at, "name it in a target's retention, or remove it", "would do nothing: no target names it")
		}
	}
}
