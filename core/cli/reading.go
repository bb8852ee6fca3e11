package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
)

// reads asks the gateway whether somebody may read recordings, and has it on record who did. Without a gateway it is written
// down for the next one. Who reads the files with other programs is not asked: that is what their modes are for.
func (a *app) reads(ctx context.Context, cfg *config.Config, r gateway.Reading) error {
	judged := len(cfg.Admin.Recordings) > 0
	token, err := adminToken(ctx, cfg, "")
	if err != nil && judged {
		return fmt.Errorf("who may read recordings is for a policy to say (admin.recordings), which takes a token: %w", err)
	}
	var done gateway.Done
	if err == nil {
		for tries := 0; tries < maxTries; tries++ { // who exports many sessions one by one is not to be told off
			err = askGateway(ctx, cfg, token, http.MethodPost, "recordings/read", r, &done)
			if !errors.Is(err, errTooMany) {
				break
			}
			select {
			case <-time.After(time.Second / 2):
			case <-ctx.Done():
				return unreachable(ctx.Err())
			}
		}
		if err == nil && done.Done {
			return nil
		}
		if err == nil {
			err = &notOurs{unreachable(fmt.Errorf("what answers on %s is no gateway", cfg.Listen.Admin))}
		}
		if !errors.Is(err, errNotOurs) {
			return err
		}
		if judged && !holdsKey(cfg) {
			return fmt.Errorf("who may read recordings is for the gateway to say (admin.recordings): %w", err)
		}
	}
	detail := map[string]any{"how": r.How}
	if r.Query != "" {
		detail["query"] = r.Query
	}
	err = writeBeside(cfg, deedBeside{At: time.Now(), By: operatorName(), Action: "recordings.read", Object: strings.Join(r.Sessions, " "), Detail: detail})
	if err != nil { // a copy that cannot be written to
		fmt.Fprintln(a.err, "weir: that this was read is on record nowhere:", printable(err.Error()))
	}
	return nil
}

// maxTries bounds how often a gateway that is busy is asked again.
const maxTries = 20

// holdsKey reports whether this process can be the gateway's operator.
func holdsKey(cfg *config.Config) bool {
	f, err := os.Open(filepath.Join(keysDir(cfg), "tokens.key"))
	if err == nil {
		_ = f.Close()
	}
	return err == nil
}

// inIndex tells a gateway of what the index knows.
type inIndex struct{ *index.Index }

// About implements gateway.Recordings.
func (x inIndex) About(ctx context.Context, sessions []string) ([]gateway.Recording, error) {
	list, err := x.Sessions(ctx, index.Query{IDs: sessions})
	out := make([]gateway.Recording, len(list))
	for i, s := range list {
		out[i] = gateway.Recording{Session: s.ID, Identity: s.Identity, Target: s.Target, Protocol: s.Protocol, Run: s.Run}
	}
	return out, err
}

// recordings is nil where this process keeps no archive.
func (e *evidence) recordings() gateway.Recordings {
	if e.index == nil {
		return nil
	}
	return inIndex{e.index}
}
