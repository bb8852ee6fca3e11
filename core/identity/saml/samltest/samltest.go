// Package samltest runs a real SAML identity provider, SimpleSAMLphp, and does what a person does in a browser. It is for
// tests.
package samltest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrNone is returned where there is no SimpleSAMLphp.
var ErrNone = errors.New("there is no SimpleSAMLphp: as root, apt-get install --no-install-recommends " + packages)

const packages = "simplesamlphp php-cli php-xml php-mbstring php-curl php-sqlite3"

const www = "/usr/share/simplesamlphp/www"

// IDP is a running identity provider. Its users are ada (analysts, staff) and eve (no group), whose passwords are their names.
type IDP struct {
	URL    string
	Entity string
	cmd    *exec.Cmd
	out    bytes.Buffer
}

// Metadata is where it describes itself.
func (i *IDP) Metadata() string { return i.URL + "/saml2/idp/metadata.php" }

// Start runs a provider whose one service provider has this entity id and takes answers at acs. Its files are in dir.
func Start(ctx context.Context, dir, sp, acs string) (*IDP, error) {
	php, err := installed(ctx)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at := ln.Addr().String()
	_ = ln.Close()
	i := &IDP{URL: "http://" + at, Entity: "http://" + at + "/idp"}
	if err := files(dir, i, sp, acs); err != nil {
		return nil, err
	}
	i.cmd = exec.CommandContext(ctx, php, "-d", "session.save_path="+dir, "-d", "error_reporting=0", "-S", at, "-t", www)
	i.cmd.Env = append(os.Environ(), "SIMPLESAMLPHP_CONFIG_DIR="+dir, "PHP_CLI_SERVER_WORKERS=2")
	i.cmd.Stdout, i.cmd.Stderr = &i.out, &i.out
	i.cmd.WaitDelay = 2 * time.Second
	group(i.cmd)
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		res, err := http.Get(i.Metadata())
		if err == nil {
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK && bytes.Contains(b, []byte("IDPSSODescriptor")) {
				return i, nil
			}
			i.Close()
			return nil, fmt.Errorf("samltest: SimpleSAMLphp answers %s:\n%s\n%s", res.Status, plain(string(b)), i.out.String())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	i.Close()
	return nil, fmt.Errorf("samltest: SimpleSAMLphp does not start:\n%s", i.out.String())
}

// installed finds PHP and SimpleSAMLphp. In continuous integration they are installed, under the lock of whoever else
// installs something.
func installed(ctx context.Context) (php string, err error) {
	find := func() bool {
		if php, err = exec.LookPath("php"); err == nil {
			_, err = os.Stat(www)
		}
		return err == nil
	}
	if find() {
		return php, nil
	}
	if os.Getenv("CI") == "" {
		return "", ErrNone
	}
	c := exec.CommandContext(ctx, "flock", filepath.Join(os.TempDir(), "weir-apt-get.lock"), "sh", "-c",
		"apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 "+packages)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("samltest: SimpleSAMLphp cannot be installed: %w\n%s", err, out)
	}
	if !find() {
		return "", ErrNone
	}
	return php, nil
}

// Close stops it.
func (i *IDP) Close() {
	if i.cmd != nil && i.cmd.Process != nil {
		kill(i.cmd)
		_ = i.cmd.Wait()
	}
}

func files(dir string, i *IDP, sp, acs string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for _, d := range []string{"metadata", "cert", "data", "log", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	quoted := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	for name, text := range map[string]string{
		"cert/idp.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"cert/idp.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		"config.php": `<?php $config = [
			'baseurlpath' => ` + quoted(i.URL+"/") + `, 'secretsalt' => 'only-for-a-test', 'auth.adminpassword' => 'no-one-' . bin2hex(random_bytes(16)),
			'certdir' => __DIR__ . '/cert/', 'loggingdir' => __DIR__ . '/log/', 'datadir' => __DIR__ . '/data/', 'tempdir' => __DIR__ . '/tmp',
			'metadatadir' => __DIR__ . '/metadata', 'timezone' => 'UTC', 'technicalcontact_email' => 'na@example.org', 'technicalcontact_name' => 'test',
			'enable.saml20-idp' => true, 'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
			'logging.handler' => 'file', 'logging.level' => 7, 'store.type' => 'phpsession', 'session.cookie.secure' => false, 'session.cookie.samesite' => null,
			'session.phpsession.cookiename' => 'idp', 'session.phpsession.savepath' => null, 'showerrors' => true, 'errorreporting' => false,
			'language.available' => ['en'], 'language.default' => 'en', 'theme.use' => 'default', 'production' => true, 'authproc.idp' => [], 'authproc.sp' => [],
			'attributenamemapdir' => '/etc/simplesamlphp/attributemap/',
			'metadata.sources' => [['type' => 'flatfile']], 'admin.protectmetadata' => false,
		];`,
		"authsources.php": `<?php $config = ['people' => ['exampleauth:UserPass',
			'ada:ada' => ['uid' => ['ada'], 'groups' => ['analysts', 'staff']],
			'eve:eve' => ['uid' => ['eve']],
		]];`,
		"metadata/saml20-idp-hosted.php": `<?php $metadata[` + quoted(i.Entity) + `] = ['host' => '__DEFAULT__', 'privatekey' => 'idp.pem', 'certificate' => 'idp.crt', 'auth' => 'people',
			'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent', 'saml20.sign.response' => true, 'saml20.sign.assertion' => true,
			'authproc' => [3 => ['class' => 'saml:AttributeNameID', 'attribute' => 'uid', 'Format' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent']],
		];`,
		"metadata/saml20-sp-remote.php": `<?php $metadata[` + quoted(sp) + `] = ['AssertionConsumerService' => ` + quoted(acs) + `];`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Browser is a person's: it has cookies, follows redirects, and sends the forms that pages send by themselves.
type Browser struct{ http.Client }

// NewBrowser makes one that trusts what t trusts; nil: what everybody does.
func NewBrowser(t http.RoundTripper) *Browser {
	jar, _ := cookiejar.New(nil) // never fails
	return &Browser{http.Client{Jar: jar, Transport: t, Timeout: 20 * time.Second}}
}

var (
	formTag  = regexp.MustCompile(`(?is)<form[^>]*>(.*?)</form>`)
	action   = regexp.MustCompile(`(?is)<form[^>]*\baction="([^"]*)"`)
	inputTag = regexp.MustCompile(`(?is)<input[^>]*>`)
	attr     = regexp.MustCompile(`(?is)\b(name|value|type)="([^"]*)"`)
	refresh  = regexp.MustCompile(`(?is)<meta http-equiv="refresh" content="0; url=([^"]*)"`)
	tag      = regexp.MustCompile(`(?s)<[^>]*>`)
)

func plain(page string) string {
	return strings.Join(strings.Fields(tag.ReplaceAllString(page, " ")), " ")
}

// SignIn opens a page, signs in as somebody, and follows the way to its end. It returns the last page, and the response of
// the provider as it went by.
func (b *Browser) SignIn(start, user, password string) (page, response string, err error) {
	res, err := b.Get(start)
	for range 10 {
		if err != nil {
			return "", response, err
		}
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		_ = res.Body.Close()
		if err != nil {
			return "", response, err
		}
		page = string(body)
		if m := refresh.FindStringSubmatch(page); m != nil {
			res, err = b.Get(html.UnescapeString(m[1]))
			if err != nil {
				return page, response, err
			}
			continue
		}
		form := formTag.FindStringSubmatch(page)
		to := action.FindStringSubmatch(page)
		if form == nil || to == nil || res.StatusCode != http.StatusOK {
			return page, response, nil
		}
		values := url.Values{}
		for _, in := range inputTag.FindAllString(form[1], -1) {
			at := map[string]string{}
			for _, m := range attr.FindAllStringSubmatch(in, -1) {
				at[strings.ToLower(m[1])] = html.UnescapeString(m[2])
			}
			if at["name"] != "" && at["type"] != "submit" {
				values.Set(at["name"], at["value"])
			}
		}
		if values.Has("username") {
			if user == "" {
				return page, response, errors.New("samltest: the provider asks again: " + plain(page))
			}
			values.Set("username", user)
			values.Set("password", password)
			user = ""
		}
		if r := values.Get("SAMLResponse"); r != "" {
			response = r
		}
		next, err := res.Request.URL.Parse(html.UnescapeString(to[1]))
		if err != nil {
			return page, response, err
		}
		if res, err = b.PostForm(next.String(), values); err != nil {
			return page, response, err
		}
	}
	return page, response, errors.New("samltest: the way has no end: " + plain(page))
}
