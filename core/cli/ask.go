package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
)

// tokenEnv names the environment variable that the token of whoever asks is in.
const tokenEnv = "WEIR_TOKEN"

func tokenFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "token-file", "", "`file` with your token (default $"+tokenEnv+", then what weir login keeps)")
	_ = c.MarkFlagFilename("token-file")
}

// tokenOf reads who asks. It is never an argument: those can be seen by everybody on the machine.
func tokenOf(ctx context.Context, file string) (string, error) {
	token := os.Getenv(tokenEnv)
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", use(fmt.Errorf("--token-file: %w", err))
		}
		token = string(b)
	}
	token = strings.TrimSpace(token)
	if token == "" && file == "" {
		if kept, err := keptToken(ctx); err != nil || kept != "" {
			return kept, err
		}
	}
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", use(fmt.Errorf("this takes a token that says who you are: weir login, or a file for --token-file, or $%s", tokenEnv))
	}
	return token, nil
}

// errNotOurs says that no gateway of this configuration's key and API answers at its admin address.
var errNotOurs = errors.New("no gateway of this configuration answers")

// askGateway asks the gateway that runs with this configuration, at its admin address.
func askGateway(ctx context.Context, cfg *config.Config, token, method, what string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	at := url.URL{Scheme: "http", Host: cfg.Listen.Admin, Path: "/api/v1/"}
	at = *at.JoinPath(strings.Split(strings.TrimSuffix(what, "/"), "/")...)
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), send)
	if err != nil {
		return use(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	direct := &http.Transport{DisableKeepAlives: true} // no proxy: it is on this machine
	client := &http.Client{Transport: direct, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return unreachable(fmt.Errorf("no gateway answers on %s: %w", cfg.Listen.Admin, err))
		}
		return unreachable(&notOurs{fmt.Errorf("no gateway answers on %s: %w", cfg.Listen.Admin, err)})
	}
	defer res.Body.Close()
	answer := json.NewDecoder(io.LimitReader(res.Body, 256<<20))
	if res.StatusCode == http.StatusOK {
		if err := answer.Decode(into); err != nil {
			return unreachable(fmt.Errorf("the answer of %s cannot be read: %w", cfg.Listen.Admin, err))
		}
		return nil
	}
	var refused struct {
		Error string `json:"error"`
	}
	_ = answer.Decode(&refused)
	err = errors.New(cmp.Or(printable(refused.Error), "the gateway answered "+res.Status))
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		if refused.Error == "" || res.StatusCode == http.StatusUnauthorized {
			return no(&notOurs{err})
		}
	case http.StatusTooManyRequests:
		return unreachable(fmt.Errorf("%w%w", err, errTooMany))
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return unreachable(err)
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return use(err)
	}
	return no(err)
}

// errTooMany says that the gateway is asked too often at present. Its text is the gateway's.
var errTooMany error = tooMany{}

type tooMany struct{}

func (tooMany) Error() string { return "" }

// notOurs is an error that errNotOurs is true of.
type notOurs struct{ error }

func (n *notOurs) Unwrap() error { return n.error }

// Is implements errors.Is.
func (*notOurs) Is(target error) bool { return target == errNotOurs }
