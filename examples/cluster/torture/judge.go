package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// judge holds everything against each other.
func (t *torture) judge(seen []loopback.Seen) error {
	if err := t.bites(seen); err != nil {
		return err
	}
	found, err := t.c.Secrets()
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("I6: a secret is in %v", found)
	}
	fmt.Fprintln(t.Out, "I6 holds: no secret and no masked value is in any file of the cluster")
	if err := t.replays(seen); err != nil {
		return err
	}
	return t.damage()
}

// bites is the control: the check reports an answer that is not in the archive, and a session that is not.
func (t *torture) bites(seen []loopback.Seen) error {
	wrong := append(slices.Clone(seen), loopback.Seen{Name: "nobody", Bytes: 1})
	i := slices.IndexFunc(wrong, func(s loopback.Seen) bool { return s.Bytes > 0 })
	wrong[i].Sum = strings.Repeat("0", 64)
	f, err := t.c.Check(wrong)
	if err != nil {
		return err
	}
	if len(f.Problems) != 2 || !strings.Contains(strings.Join(f.Problems, "\n"), wrong[i].Name) {
		return fmt.Errorf("the check does not notice two accounts that are wrong: %q", f.Problems)
	}
	return nil
}

// replays demands that what weir replay gives back is what the client saw (I10).
func (t *torture) replays(seen []loopback.Seen) error {
	out, errs, code := t.c.Run("sessions", "-o", "json", "--limit", "1000000")
	var list []struct{ ID, Identity, End string }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return fmt.Errorf("weir sessions ended with %d: %w: %s", code, err, errs)
	}
	var own []struct{ ID, Identity, End string } // what was done to the gateway itself
	out, errs, code = t.c.Run("sessions", "--protocol", "admin", "-o", "json", "--limit", "1000000")
	if err := json.Unmarshal([]byte(out), &own); err != nil {
		return fmt.Errorf("weir sessions ended with %d: %w: %s", code, err, errs)
	}
	a, err := t.c.Open(t.c.Archive())
	if err != nil {
		return err
	}
	list = append(list, own...)
	open, strange := 0, 0
	for _, s := range list {
		if s.End == "" {
			open++
		}
		if a.Sessions[s.ID] == nil {
			strange++
		}
	}
	missing := len(a.Sessions) - (len(list) - strange)
	if open+strange+missing > 0 { // the index is no evidence, and can be made anew
		fmt.Fprintf(t.Out, "NOT in order: of %d sessions, all sealed, the index lists %d as open, lacks %d, and has %d that are not in the archive; weir index rebuild mends it\n", len(a.Sessions), open, missing, strange)
	} else {
		fmt.Fprintf(t.Out, "the index lists all %d sessions, and all as sealed\n", len(list))
	}
	accounts := map[string]loopback.Seen{}
	for _, s := range seen {
		accounts[s.Name] = s
	}
	replayed := 0
	for _, i := range t.rnd.Perm(len(list)) {
		if replayed == 20 {
			break
		}
		if t.c.Unread(list[i].ID) {
			continue
		}
		out, errs, code := t.c.Run("replay", list[i].ID, "--format", "json")
		if code != 0 {
			return fmt.Errorf("I10: weir replay %s ended with %d: %s", list[i].ID, code, errs)
		}
		name, greeted := "", false
		var b []byte
		for line := range strings.Lines(out) {
			var r struct {
				Kind, Direction string
				Wire            []byte
				Facts           struct{ Details map[string]string }
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return fmt.Errorf("I10: weir replay %s: %w", list[i].ID, err)
			}
			if r.Kind == "open" {
				name = r.Facts.Details["application_name"]
			}
			switch {
			case r.Direction == "client":
			case greeted:
				b = append(b, r.Wire...)
			default:
				greeted = r.Direction == "upstream"
				if !greeted {
					b = append(b, r.Wire...)
				}
			}
		}
		want, ok := accounts[name]
		if !ok || want.Bytes == 0 {
			continue
		}
		if int64(len(b)) < want.Bytes && want.Window != nil {
			continue // what may be missing at its end has been judged
		}
		if int64(len(b)) < want.Bytes {
			return fmt.Errorf("I10: weir replay %s gives %d bytes, the client saw %d", list[i].ID, len(b), want.Bytes)
		}
		if sum := sha256.Sum256(b[:want.Bytes]); hex.EncodeToString(sum[:]) != want.Sum {
			return fmt.Errorf("I10: weir replay %s does not give what the client saw", list[i].ID)
		}
		replayed++
	}
	fmt.Fprintf(t.Out, "I10 holds: %d sessions picked by chance are replayed byte for byte\n", replayed)
	return nil
}

// damage changes copies of the archive, each in one place, and demands that weir verify notices each.
func (t *torture) damage() error {
	const tries = 12
	copyDir := filepath.Join(t.Dir, "damaged")
	for n := range tries {
		if err := os.RemoveAll(copyDir); err != nil {
			return err
		}
		if out, err := exec.Command("cp", "-r", "--no-preserve=mode", t.c.Archive(), copyDir).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		files, err := filepath.Glob(filepath.Join(copyDir, "*.weir"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no segments in %s: %w", copyDir, err)
		}
		what := files[t.rnd.IntN(len(files))]
		b, err := os.ReadFile(what)
		if err != nil {
			return err
		}
		if len(b) < 100 {
			continue
		}
		at := 16 + t.rnd.IntN(len(b)-16)
		how := "a flipped bit"
		switch n % 3 {
		case 0, 1:
			b[at] ^= 1 << t.rnd.IntN(8)
		default:
			how, b = "a cut end", b[:at]
		}
		if err := os.WriteFile(what, b, 0o600); err != nil {
			return err
		}
		if r, err := t.c.Verify("--archive", copyDir, "--ledger", filepath.Join(t.Dir, "archive", "ledger"), "--key", filepath.Join(t.Dir, "archive", "keys", "ledger.pub")); err == nil && r.OK {
			return fmt.Errorf("I8: %s at %d of %s is not noticed", how, at, what)
		}
	}
	fmt.Fprintf(t.Out, "I8 holds: %d of %d damaged copies of the archive are noticed\n", tries, tries)
	return os.RemoveAll(copyDir)
}
