package keyring

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// memory is a Store.
type memory map[string][]byte

func (m memory) PutKey(_ context.Context, name string, b []byte) error { m[name] = b; return nil }
func (m memory) DropKey(_ context.Context, name string) error          { delete(m, name); return nil }

func (m memory) Key(_ context.Context, name string) ([]byte, error) {
	b, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (m memory) Keys(_ context.Context, f func(string) error) error {
	for name := range m {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func made(t *testing.T, m memory, r Record, to ...age.Recipient) *ledger.RecordingKey {
	t.Helper()
	key, b, err := Make(r, to...)
	if err != nil {
		t.Fatal(err)
	}
	m[key.ID.String()] = b
	return key
}

// vault is a Transit whose ciphertext is of no use to anybody else.
type vault struct{ down bool }

func (v *vault) Encrypt(_ context.Context, key string, plain []byte) (string, error) {
	if v.down {
		return "", errors.New("down")
	}
	return "vault:v1:" + key + ":" + base64.StdEncoding.EncodeToString(plain), nil
}

func (v *vault) Decrypt(_ context.Context, key, sealed string) ([]byte, error) {
	rest, ok := strings.CutPrefix(sealed, "vault:v1:"+key+":")
	if v.down || !ok {
		return nil, errors.New("down, or another key's")
	}
	return base64.StdEncoding.DecodeString(rest)
}

func TestRing(t *testing.T) {
	ctx := context.Background()
	own, auditor, stranger := identity(t), identity(t), identity(t)
	v := &vault{}
	transit := &InTransit{By: v, Key: "transit/weir"}
	m := memory{}
	key := made(t, m, Record{Subject: "ada", Issuer: "weir", Gateway: "g1", Created: time.Now()}, own.Recipient(), auditor.Recipient(), transit)
	want := key.Session("s1").Raw()
	for name, id := range map[string]age.Identity{"own": own, "auditor": auditor, "vault": transit} {
		got, err := New(m, id).DataKey(ctx, key.ID, "s1")
		if err != nil || string(got.Raw()) != string(want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]*Ring{
		"a stranger": New(m, stranger), "nobody": New(m), "no ring": nil, "another key of the vault": New(m, &InTransit{By: v, Key: "transit/other"}),
	} {
		if _, err := r.DataKey(ctx, key.ID, "s1"); !errors.Is(err, ledger.ErrLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.down = true
	if _, err := New(m, transit).DataKey(ctx, key.ID, "s1"); err == nil || errors.Is(err, ledger.ErrLocked) {
		t.Errorf("a vault that is down: %v", err)
	}
	if _, _, err := Make(Record{}, transit); err == nil {
		t.Error("wrapped by a vault that is down")
	}
	if _, err := New(m, own).DataKey(ctx, ledger.NewRecordingKey().ID, "s1"); !errors.Is(err, ledger.ErrNoKey) {
		t.Errorf("an unknown key: %v", err)
	}
	rec, err := Parse(m[key.ID.String()])
	if err != nil || rec.Subject != "ada" || rec.Issuer != "weir" || rec.Gateway != "g1" {
		t.Fatalf("%+v, %v", rec, err)
	}
	// A record that was put in the place of another does not pass for it.
	other := made(t, m, Record{Subject: "eve"}, own.Recipient())
	swapped := memory{key.ID.String(): m[other.ID.String()]}
	if _, err := New(swapped, own).DataKey(ctx, key.ID, "s1"); err == nil {
		t.Error("another key's record was taken")
	}
	forged := *rec
	forgedOf, _ := Parse(m[other.ID.String()])
	forged.Wrapped = forgedOf.Wrapped
	b, _ := forged.Encode()
	if _, err := New(memory{key.ID.String(): b}, own).DataKey(ctx, key.ID, "s1"); err == nil {
		t.Error("a record with another key inside was taken")
	}
	for _, bad := range [][]byte{nil, []byte("WRK\x01"), []byte("WRK\x01{}"), []byte("WRK\x02{}"), append([]byte("WRK\x01"), make([]byte, MaxRecord)...)} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%.20q is a record", bad)
		}
	}
}

func TestForgottenAndReloaded(t *testing.T) {
	ctx := context.Background()
	first, second := identity(t), identity(t)
	m := memory{}
	key := made(t, m, Record{Subject: "ada"}, second.Recipient())
	r := New(m, first)
	if _, err := r.DataKey(ctx, key.ID, "s1"); !errors.Is(err, ledger.ErrLocked) {
		t.Fatal(err)
	}
	r.Reload = func() ([]age.Identity, error) { return []age.Identity{first, second}, nil }
	if _, err := r.DataKey(ctx, key.ID, "s1"); err != nil {
		t.Fatal(err)
	}
	delete(m, key.ID.String())
	if _, err := r.DataKey(ctx, key.ID, "s1"); err != nil {
		t.Fatal("what is open is asked for anew each time: ", err)
	}
	r.Forget(key.ID)
	if _, err := r.DataKey(ctx, key.ID, "s1"); !errors.Is(err, ledger.ErrNoKey) {
		t.Fatalf("a destroyed key: %v", err)
	}
}

func TestRewrap(t *testing.T) {
	ctx := context.Background()
	old, fresh, elsewhere := identity(t), identity(t), identity(t)
	m := memory{}
	ours := made(t, m, Record{Subject: "ada"}, old.Recipient())
	theirs := made(t, m, Record{Subject: "eve"}, elsewhere.Recipient())
	done, locked, err := New(m, old).Rewrap(ctx, fresh.Recipient())
	if err != nil || done != 1 || locked != 1 {
		t.Fatal(done, locked, err)
	}
	if _, err := New(m, fresh).DataKey(ctx, ours.ID, "s"); err != nil {
		t.Error(err)
	}
	if _, err := New(m, old).DataKey(ctx, ours.ID, "s"); !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("the old identity still opens it: %v", err)
	}
	if _, err := New(m, elsewhere).DataKey(ctx, theirs.ID, "s"); err != nil {
		t.Error(err)
	}
}

func TestLocalIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := Local(dir)
	if err != nil || len(a) != 1 {
		t.Fatal(a, err)
	}
	path := filepath.Join(dir, LocalFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	b, err := Local(dir)
	if err != nil || len(b) != 1 || b[0].String() != a[0].String() {
		t.Fatal("another key at the second start: ", err)
	}
	c, err := RotateLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := Local(dir); err != nil || len(all) != 2 || all[0].String() != c.String() || all[1].String() != a[0].String() {
		t.Fatal(all, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	os.Chmod(path, 0o640)
	if _, err := Local(dir); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("mode 640: %v", err)
	}
	os.Chmod(path, 0o600)
	os.WriteFile(path, []byte("AGE-SECRET-KEY-1HIDDEN"), 0o600)
	if _, err := Local(dir); err == nil || strings.Contains(err.Error(), "HIDDEN") {
		t.Errorf("garbage: %v", err)
	}
	for _, bad := range []string{"", "age1", "AGE-SECRET-KEY-1X", a[0].String(), "age1x\nage1y"} {
		if _, err := ParseRecipient(bad); err == nil {
			t.Errorf("%.8q is a recipient", bad)
		}
	}
}

// blocks is a store of one session.
type blocks struct{ list []core.Block }

func (b blocks) Put(context.Context, []core.Block) error                { return nil }
func (b blocks) Close() error                                           { return nil }
func (b blocks) Sessions(_ context.Context, f func(string) error) error { return f("s1") }
func (b blocks) Blocks(_ context.Context, _ string, f func(core.Block) error) error {
	for _, k := range b.list {
		if err := f(k); err != nil {
			return err
		}
	}
	return nil
}

func TestReader(t *testing.T) {
	ctx := context.Background()
	own := identity(t)
	m := memory{}
	key := made(t, m, Record{Subject: "ada"}, own.Recipient())
	secret, err := ledger.NewEncoder().EncodeSecret(core.BlockHeader{Session: "s1", LastSeq: 1<<64 - 1}, 0, 0, []byte{4, 'x'}, key.Session("s1"))
	if err != nil {
		t.Fatal(err)
	}
	s := blocks{[]core.Block{secret}}
	count := func(r Reader) (read, closed int, err error) {
		err = r.Blocks(ctx, "s1", func(b core.Block) error {
			h, err := ledger.ParseBlock(b.Bytes)
			if h.Secret {
				closed++
			} else {
				read++
			}
			return err
		})
		return read, closed, err
	}
	if read, _, err := count(Reader{Store: s, Ring: New(m, own)}); read != 1 || err != nil {
		t.Error(read, err)
	}
	if _, _, err := count(Reader{Store: s}); !errors.Is(err, ledger.ErrLocked) {
		t.Error(err)
	}
	if _, closed, err := count(Reader{Store: s, Closed: true}); closed != 1 || err != nil {
		t.Error(closed, err)
	}
}

func FuzzParse(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	_, b, err := Make(Record{Subject: "ada"}, id.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("WRK\x01{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Parse(b); err == nil {
			if _, err := r.Open(id); err != nil {
				return
			}
		}
	})
}
