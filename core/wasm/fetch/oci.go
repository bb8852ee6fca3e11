package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/weir-gateway/weir/core/download"
)

// SignatureType is the media type of the layer that holds the signature of the module beside it.
const SignatureType = "application/vnd.weir.plugin.signature"

const maxOCIManifest = 1 << 20

// artifact is an OCI reference taken apart.
type artifact struct {
	registry, repository, tag string
	digest                    digest.Digest // empty: not pinned
}

// parseOCI reads oci://HOST/REPO[:TAG][@sha256:…].
func parseOCI(ref string) (a artifact, err error) {
	rest := strings.TrimPrefix(ref, OCI)
	rest, pinned, has := strings.Cut(rest, "@")
	if has {
		a.digest = digest.Digest(pinned)
		if a.digest.Validate() != nil || a.digest.Algorithm() != digest.SHA256 {
			return a, fmt.Errorf("%s: %q is no sha256 digest", ref, pinned)
		}
	}
	r, err := registry.ParseReference(rest)
	if err != nil {
		return a, fmt.Errorf("%s is not oci://HOST/REPO[:TAG]@sha256:…", ref)
	}
	a.registry, a.repository, a.tag = r.Registry, r.Repository, r.Reference
	return a, nil
}

// oci gets the one WebAssembly layer of an OCI artifact, and its signature if there is one. What the manifest says is
// held to the digest in the reference, and the layers to those in the manifest.
func (f *Fetcher) oci(ctx context.Context, s *Source, m *Module) (signature []byte, err error) {
	a, err := parseOCI(s.Ref)
	if err != nil {
		return nil, err
	}
	if a.digest == "" && !f.Unpinned {
		return nil, bad("wasm", "weir plugin inspect "+s.Ref+" prints it", "%s is not pinned: add @sha256:… of its manifest", s.Ref)
	}
	host, _, err := net.SplitHostPort(a.registry)
	if err != nil {
		host = a.registry
	}
	credential := auth.EmptyCredential
	if s.User != "" || s.Password != "" {
		credential = auth.Credential{Username: s.User, Password: s.Password}
	}
	repo := &remote.Repository{
		Reference: registry.Reference{Registry: a.registry, Repository: a.repository}, PlainHTTP: download.Loopback(strings.Trim(host, "[]")),
		Client: &auth.Client{Client: download.Client, Credential: auth.StaticCredential(a.registry, credential), Header: http.Header{"User-Agent": {"weir"}}},
	}
	manifest, err := f.manifest(ctx, repo, &a)
	if err != nil {
		return nil, err
	}
	m.Ref = OCI + a.registry + "/" + a.repository + "@" + a.digest.String()
	if a.tag != "" {
		m.Ref = OCI + a.registry + "/" + a.repository + ":" + a.tag + "@" + a.digest.String()
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return nil, fmt.Errorf("%s: its manifest cannot be read: %w", s.Ref, err)
	}
	var module *ocispec.Descriptor
	for i := range doc.Layers {
		l := &doc.Layers[i]
		if l.MediaType == SignatureType {
			if signature, err = f.layer(ctx, repo, l, maxSignature); err != nil {
				return nil, err
			}
			continue
		}
		if module != nil {
			return nil, fmt.Errorf("%s has more than one layer: a plugin is one module", s.Ref)
		}
		module = l
	}
	if module == nil {
		return nil, fmt.Errorf("%s is no artifact with a module: it has the media type %q and no layer", s.Ref, doc.MediaType)
	}
	m.Bytes, err = f.layer(ctx, repo, module, maxModule)
	return signature, err
}

// manifest gets the manifest by its digest, or by its tag where nothing is pinned.
func (f *Fetcher) manifest(ctx context.Context, repo *remote.Repository, a *artifact) ([]byte, error) {
	if a.digest != "" {
		if b := f.cached(a.digest.Encoded()); b != nil {
			return b, nil
		}
	}
	want := a.digest.String()
	if want == "" {
		if want = a.tag; want == "" {
			want = "latest"
		}
	}
	_, r, err := repo.Manifests().FetchReference(ctx, want)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := download.ReadAll(r, "its manifest", maxOCIManifest)
	if err != nil {
		return nil, err
	}
	got := digest.FromBytes(b)
	if a.digest == "" {
		a.digest = got
	}
	if got != a.digest {
		return nil, fmt.Errorf("the registry answers with the manifest %s, not %s", got, a.digest)
	}
	return b, f.keepNew(a.digest.Encoded(), b)
}

// layer gets a blob that a manifest names.
func (f *Fetcher) layer(ctx context.Context, repo *remote.Repository, l *ocispec.Descriptor, most int64) ([]byte, error) {
	if l.Digest.Validate() != nil || l.Digest.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("a layer has the digest %q: sha256 is needed", l.Digest)
	}
	if l.Size > most {
		return nil, fmt.Errorf("a layer of %s has %d bytes: at most %d are taken", repo.Reference, l.Size, most)
	}
	if b := f.cached(l.Digest.Encoded()); b != nil {
		return b, nil
	}
	r, err := repo.Blobs().Fetch(ctx, *l)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := download.ReadAll(r, "a layer", most)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != l.Digest {
		return nil, fmt.Errorf("a layer has the digest %s, and the manifest says %s", got, l.Digest)
	}
	return b, f.keepNew(l.Digest.Encoded(), b)
}

// keepNew keeps what has been found to be what its digest says, unless one only looks.
func (f *Fetcher) keepNew(sum string, b []byte) error {
	if f.Unpinned {
		return nil
	}
	return f.keep(sum, b)
}
