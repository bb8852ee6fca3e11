// Package bundle writes and reads one session as one file that an auditor can take along: the blocks, the proof that the
// signed log has them, the log's public key, and a page that shows the session in a browser. It is a zip archive; its
// contents are written down in core/ARCHIVE.md.
package bundle

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/ledger"
)

// The files of a bundle.
const (
	readmeFile = "README.txt"
	pageFile   = "timeline.html"
	proofFile  = "proof.json"
	keyFile    = "ledger.pub"
	dataFile   = "keys.json" // of an encrypted session only

	number   = 1       // of the one segment
	maxSmall = 1 << 20 // bytes of each file but the blocks and the page
	maxFiles = 64
)

const readme = `This file holds one session that Weir recorded, and the proof that nothing in it was changed, dropped or reordered.

  timeline.html    the session, for a browser; it loads nothing from anywhere. It is for reading and proves nothing.
  00000001.weir    the session's blocks
  proof.json       where in the signed log the session's seal is
  ledger.pub       the log's public key, as the exporter had it
  keys.json        of an encrypted session: the keys that open it, and no other session

Verify the file with the public key that you have from a source you trust, not with the one inside:

  weir verify FILE --key ledger.pub

The formats are open: core/ARCHIVE.md in the source of Weir says how to do without it.
`

// Config says what goes into a bundle.
type Config struct {
	Store     core.Store
	Session   string
	LedgerDir string
	PublicKey string      // the text of ledger.pub
	Keys      ledger.Keys // opens the session, where it is encrypted
	// Page writes the page that shows the session.
	Page func(w io.Writer) error
}

// Write writes a bundle. The session is verified first: what does not hold is not exported.
func Write(ctx context.Context, w io.Writer, c Config) (ledger.Report, error) {
	proof, err := ledger.Prove(c.LedgerDir, c.PublicKey, c.Session)
	if err != nil {
		return ledger.Report{}, err
	}
	r, err := ledger.VerifyProof(ctx, one{c.Store, c.Session}, proof, c.PublicKey, c.Keys)
	if err != nil || !r.OK() {
		return r, err
	}
	keys, err := dataKeys(ctx, c)
	if err != nil {
		return r, err
	}
	z := zip.NewWriter(w)
	put := func(name string, method uint16, f func(w io.Writer) error) {
		if err != nil {
			return
		}
		var file io.Writer
		if file, err = z.CreateHeader(&zip.FileHeader{Name: name, Method: method}); err == nil {
			err = f(file)
		}
	}
	put(readmeFile, zip.Deflate, func(w io.Writer) error { _, err := io.WriteString(w, readme); return err })
	put(keyFile, zip.Deflate, func(w io.Writer) error { _, err := io.WriteString(w, c.PublicKey); return err })
	put(proofFile, zip.Deflate, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(proof)
	})
	if len(keys) > 0 {
		put(dataFile, zip.Deflate, func(w io.Writer) error { return json.NewEncoder(w).Encode(keys) })
	}
	put(pageFile, zip.Deflate, c.Page)
	put(segment.Name(number), zip.Store, func(w io.Writer) error { // as it is, so that it can be read in place
		_, err := w.Write(segment.Head(number))
		if err != nil {
			return err
		}
		left := r.Blocks // an open session may have got more since it was verified
		err = c.Store.Blocks(ctx, c.Session, func(b core.Block) error {
			if left == 0 {
				return errEnough
			}
			left--
			_, err := w.Write(segment.AppendFrame(nil, &b))
			return err
		})
		if errors.Is(err, errEnough) {
			err = nil
		}
		return err
	})
	return r, errors.Join(err, z.Close())
}

// dataKeys returns the keys that open a session, by the names of the recording keys that they are derived from.
func dataKeys(ctx context.Context, c Config) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := c.Store.Blocks(ctx, c.Session, func(b core.Block) error {
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil || !h.Secret || out[h.Key.String()] != nil {
			return err
		}
		key, err := c.Keys.DataKey(ctx, h.Key, c.Session)
		if err != nil {
			return fmt.Errorf("session %s: %w", c.Session, err)
		}
		out[h.Key.String()] = key.Raw()
		return nil
	})
	return out, err
}

var errEnough = errors.New("bundle: that was all")

// one is a store's one session.
type one struct {
	core.Store
	id string
}

// Sessions implements core.Store.
func (o one) Sessions(_ context.Context, f func(string) error) error { return f(o.id) }

// Bundle is an open bundle. It is a store of one session.
type Bundle struct {
	Proof     ledger.Proof
	PublicKey string // as the exporter had it: it proves nothing by itself

	file     *os.File
	blocks   *io.SectionReader
	sessions segment.Directory
	damage   []string
	keys     map[string][]byte
}

// Is reports whether a file looks like a bundle.
func Is(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 4)
	_, err = io.ReadFull(f, b)
	return err == nil && bytes.Equal(b, []byte("PK\x03\x04"))
}

// Open opens a bundle. What it holds is not verified: see ledger.VerifyProof.
func Open(path string) (*Bundle, error) {
	b, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", path, err)
	}
	return b, nil
}

func open(path string) (_ *Bundle, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b := &Bundle{file: f, sessions: segment.Directory{}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, errors.New("it is no bundle")
	}
	if len(z.File) > maxFiles {
		return nil, errors.New("it holds too many files to be a bundle")
	}
	files := map[string]*zip.File{}
	for _, e := range z.File {
		if files[e.Name] != nil {
			return nil, fmt.Errorf("it holds %s twice", e.Name)
		}
		files[e.Name] = e
	}
	proof, err := small(files, proofFile)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(proof, &b.Proof); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", proofFile, err)
	}
	key, err := small(files, keyFile)
	if err != nil {
		return nil, err
	}
	b.PublicKey = string(key)
	if files[dataFile] != nil {
		raw, err := small(files, dataFile)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &b.keys); err != nil {
			return nil, fmt.Errorf("%s cannot be read", dataFile)
		}
	}
	e := files[segment.Name(number)]
	if e == nil {
		return nil, fmt.Errorf("it has no %s", segment.Name(number))
	}
	if e.Method != zip.Store || e.UncompressedSize64 != e.CompressedSize64 || e.UncompressedSize64 > 1<<31 {
		return nil, fmt.Errorf("%s is compressed, or too long", e.Name)
	}
	at, err := e.DataOffset()
	if err != nil {
		return nil, err
	}
	b.blocks = io.NewSectionReader(f, at, int64(e.UncompressedSize64))
	frames, _, damage, err := segment.Scan(b.blocks, b.blocks.Size(), number, 0, false)
	if err != nil {
		return nil, err
	}
	for _, fr := range frames {
		b.sessions.Add(fr)
	}
	b.damage = append(damage, b.sessions.Unlisted(frames)...)
	return b, nil
}

// small reads one of the short files.
func small(files map[string]*zip.File, name string) ([]byte, error) {
	e := files[name]
	if e == nil {
		return nil, fmt.Errorf("it has no %s", name)
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s is too long", name)
	}
	return b, err
}

// Put implements core.Store: a bundle takes nothing.
func (b *Bundle) Put(context.Context, []core.Block) error {
	return errors.New("bundle: it is for reading only")
}

// Sessions implements core.Store.
func (b *Bundle) Sessions(ctx context.Context, f func(id string) error) error {
	return segment.Each(ctx, b.sessions.Names(), f)
}

// Blocks implements core.Store.
func (b *Bundle) Blocks(ctx context.Context, id string, f func(core.Block) error) error {
	list := b.sessions.Of(id)
	if len(list) == 0 {
		return fmt.Errorf("bundle: session %s: %w", id, core.ErrNoSession)
	}
	for _, r := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, size := r.Stored()
		stored := make([]byte, size)
		if _, err := b.blocks.ReadAt(stored, at); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		if err := f(segment.Block(id, r, stored)); err != nil {
			return err
		}
	}
	return nil
}

// Last returns the session's last block, or an error that wraps core.ErrNoSession.
func (b *Bundle) Last(ctx context.Context, id string) (last core.Block, err error) {
	err = b.Blocks(ctx, id, func(k core.Block) error { last = k; return nil })
	return last, err
}

// Damage implements ledger.Checker.
func (b *Bundle) Damage(context.Context) ([]string, error) { return b.damage, nil }

// DataKey implements ledger.Keys with the keys that the bundle brings.
func (b *Bundle) DataKey(_ context.Context, id ledger.KeyID, _ string) (*ledger.DataKey, error) {
	raw := b.keys[id.String()]
	if raw == nil {
		return nil, ledger.ErrLocked
	}
	return ledger.ParseDataKey(id, raw)
}

// Close implements core.Store.
func (b *Bundle) Close() error { return b.file.Close() }

var (
	_ core.Store     = (*Bundle)(nil)
	_ ledger.Checker = (*Bundle)(nil)
	_ ledger.Keys    = (*Bundle)(nil)
)
