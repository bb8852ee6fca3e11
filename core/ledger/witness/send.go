package witness

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

// Bounds of what a witness answers, and of how much of a refusal is told.
const (
	mostAnswer = 64 << 10
	mostSaid   = 200
	tries      = 3 // in a row, with the sizes that the witness names
)

// reason is why there is no cosignature.
type reason string

const (
	unreachable reason = "unreachable" // no answer, or the server's own failure
	refused     reason = "refused"     // it does not know the log, or its key
	forked      reason = "forked"      // it has cosigned another log
	answer      reason = "answer"      // what it says cannot be used
	local       reason = "local"       // of this process: the log, the disk
)

type failure struct {
	why reason
	error
}

// Unwrap gives the error.
func (f *failure) Unwrap() error { return f.error }

func fail(why reason, format string, args ...any) error {
	return &failure{why, fmt.Errorf(format, args...)}
}

func reasonOf(err error) reason {
	var f *failure
	if errors.As(err, &f) {
		return f.why
	}
	return local
}

// newClient goes straight to the witness: no proxy of the environment, no redirect. Without roots those of the system count.
func newClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: download.Guard(&http.Transport{
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send has the newest checkpoint cosigned, if the log has grown since the last one was.
func (p *peer) send(ctx context.Context) error {
	if p.stuck != nil {
		return p.stuck
	}
	l := p.s.c.Ledger
	signed, err := p.s.c.Newest()
	if err != nil {
		return err
	}
	c, err := l.OpenOwn(signed)
	if err != nil {
		return err
	}
	if c.Size == 0 || c.Size == p.done { // done is written here only
		return nil
	}
	for range tries {
		proof, err := l.Consistency(p.old, c.Size)
		if err != nil {
			return err
		}
		body := fmt.Appendf(nil, "old %d\n", p.old)
		for _, h := range proof {
			body = append(base64.StdEncoding.AppendEncode(body, h[:]), '\n')
		}
		body = append(append(body, '\n'), signed...)
		said, err := p.post(ctx, body)
		if err != nil {
			return err
		}
		if said.status == http.StatusOK {
			cosigned, err := l.Cosign(p.Key, signed, said.body)
			if err != nil {
				return fail(answer, "the answer is no cosignature by the key in the configuration: %w", err)
			}
			p.cosigned(cosigned)
			return nil
		}
		knows, err := said.refusal(c.Size)
		if err != nil {
			return err
		}
		if knows == p.old {
			if knows == c.Size {
				return fail(forked, "the witness has cosigned other %d leaves than this log's: the log was written anew; keep both, and find out who has its key", knows)
			}
			return fail(answer, "the witness asks to go on from %d leaves, which was done", knows)
		}
		p.old = knows
	}
	return fail(answer, "the witness names another size each time")
}

type said struct {
	status int
	kind   string // of the content
	body   []byte
}

func (p *peer) post(ctx context.Context, body []byte) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, p.s.c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(p.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return said{}, fail(unreachable, "%w", err)
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("User-Agent", "weir")
	res, err := p.s.client.Do(req)
	if err != nil {
		return said{}, fail(unreachable, "%w", err)
	}
	defer res.Body.Close()
	b, err := download.ReadAll(res.Body, "the answer", mostAnswer)
	if err != nil && ctx.Err() != nil {
		return said{}, fail(unreachable, "%w", err)
	}
	if err != nil {
		return said{}, fail(answer, "%w", err)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return said{res.StatusCode, kind, b}, nil
}

// refusal says what an answer that is no cosignature means; without an error it is the size to go on from.
func (a said) refusal(size int64) (knows int64, err error) {
	switch a.status {
	case http.StatusConflict:
		text := strings.TrimSuffix(string(a.body), "\n")
		knows, err := strconv.ParseInt(text, 10, 64)
		if a.kind != "text/x.tlog.size" || err != nil || knows < 0 || strconv.FormatInt(knows, 10) != text {
			return 0, fail(answer, "the witness refuses the size and does not say which one it has%s", a.words())
		}
		if knows > size {
			return 0, fail(forked, "the witness has cosigned %d leaves, and this log has %d: it is an old copy, or was written anew; restore the ledger", knows, size)
		}
		return knows, nil
	case http.StatusUnprocessableEntity:
		return 0, fail(forked, "the witness has cosigned another log than this: its leaves are not this log's first ones; keep the ledger as it is, and find out who has its key%s", a.words())
	case http.StatusNotFound:
		return 0, fail(refused, "the witness does not know this log: give whoever runs it keys/ledger.pub, and check the URL%s", a.words())
	case http.StatusForbidden:
		return 0, fail(refused, "the witness does not take this log's key: give whoever runs it the present keys/ledger.pub%s", a.words())
	}
	if a.status >= 500 || a.status == http.StatusTooManyRequests {
		return 0, fail(unreachable, "the witness answers %d%s", a.status, a.words())
	}
	return 0, fail(answer, "the witness answers %d%s", a.status, a.words())
}

// words is what the witness says for people.
func (a said) words() string {
	text := strings.TrimSpace(string(a.body[:min(len(a.body), mostSaid)]))
	if text == "" {
		return ""
	}
	return fmt.Sprintf(": %q", text)
}
