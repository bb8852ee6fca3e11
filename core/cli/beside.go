package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
)

// What is done with the gateway's own key while no gateway runs cannot be recorded at once. It is written down in the data
// folder before it is done, and the next gateway records it.

// besideFile holds a line for each such act.
const besideFile = "admin.pending"

const (
	maxBeside  = 16 << 20         // bytes
	besideTime = 10 * time.Second // to record them in
)

// deedBeside is such an act.
type deedBeside struct {
	At     time.Time      `json:"at"`
	By     string         `json:"by"`
	Action string         `json:"action"`
	Object string         `json:"object"`
	Detail map[string]any `json:"detail,omitempty"`
}

func besidePath(c *config.Config) string { return filepath.Join(c.Data, besideFile) }

// lockBeside opens the file, and holds it until it is closed.
func lockBeside(c *config.Config, flags int) (*os.File, error) {
	f, err := os.OpenFile(besidePath(c), flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writeBeside writes an act down, durably.
func writeBeside(c *config.Config, d deedBeside) error {
	line, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	f, err := lockBeside(c, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxBeside {
		err = fmt.Errorf("%s is full: start the gateway, which records what it holds", f.Name())
	}
	if err == nil {
		_, err = f.Write(append([]byte("\n"), append(line, '\n')...)) // a line of its own, whatever a crash has left
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// recordBeside records what was done beside the gateway. What cannot be recorded now stays for the next time.
func recordBeside(ctx context.Context, c *config.Config, g *gateway.Gateway, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	if err := recorded(ctx, c, g, log); err != nil {
		log.Error("cli: what was done beside the gateway is not recorded yet", "file", besidePath(c), "error", err)
	}
}

func recorded(ctx context.Context, c *config.Config, g *gateway.Gateway, log *slog.Logger) error {
	if info, err := os.Stat(besidePath(c)); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	f, err := lockBeside(c, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	var kept bytes.Buffer
	var last error
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var d deedBeside
		if err := json.Unmarshal(line, &d); err != nil {
			log.Warn("cli: a line cannot be read, and is left out: what was written last before a crash, or by somebody else", "file", f.Name())
			continue
		}
		detail := map[string]any{"at": d.At.UTC().Format(time.RFC3339), "beside": "no gateway was asked"}
		for k, v := range d.Detail {
			detail[k] = v
		}
		err := g.Do(ctx, gateway.Act{Action: d.Action, Object: d.Object, Who: gateway.Local(d.By), Operator: true, Detail: detail, Changes: true, Unasked: true},
			func(context.Context) (string, error) { return "done before", nil })
		if err != nil {
			last = err
			kept.Write(append(line, '\n'))
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if last == nil {
		return errors.Join(f.Truncate(0), f.Sync())
	}
	// The rest is what cannot be recorded now: to be told twice is better than not at all, so it is written before the cut.
	if _, err := f.WriteAt(kept.Bytes(), 0); err != nil {
		return err
	}
	return errors.Join(last, f.Truncate(int64(kept.Len())), f.Sync())
}
