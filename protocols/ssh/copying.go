package ssh

import (
	"context"
	"encoding/hex"
	"path"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/scp"
)

// copying tells which way files go in a command of the old scp, and below which path, as clients of it say that:
// scp [-v] [-r] [-p] [-d] -t|-f [--] PATH.
func copying(text string) (way core.Direction, below string, ok bool) {
	program, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	if path.Base(program) != "scp" {
		return 0, "", false
	}
	for {
		word, more, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		if word == "--" {
			rest = more
			break
		}
		if len(word) < 2 || word[0] != '-' {
			break
		}
		switch {
		case strings.Contains(word, "t"):
			way = core.FromClient
		case strings.Contains(word, "f"):
			way = core.FromUpstream
		}
		rest = more
	}
	return way, strings.TrimSpace(rest), way != 0
}

// copied returns what is to be told the bytes of a stream of the old scp; it records each file that has passed. Nil: it is no such stream.
func (ch *channel) copied(ctx context.Context, way core.Direction) func(data []byte) {
	if ch.request != "exec" || ch.hasPTY {
		return nil
	}
	from, below, ok := copying(ch.in.Command.Text)
	if !ok || from != way {
		return nil
	}
	what := "read"
	if way == core.FromClient {
		what = "written"
	}
	lost := false
	s := &scp.Stream{Done: func(f scp.File) {
		x := &extent{bytes: uint64(f.Size)}
		if f.Size > 0 {
			x.ranges = []span{{0, x.bytes}}
		}
		ch.keep(ctx, core.KindResult, way, &core.Result{Status: "file", Message: x.said(what, hex.EncodeToString(f.SHA256[:])) + ": " + line(below+": "+f.Path)})
	}}
	return func(data []byte) {
		if _, err := s.Write(data); err != nil && !lost {
			lost = true
			ch.keep(ctx, core.KindNotice, way, &core.Result{Status: "warning", Message: "this is not scp as Weir knows it: its files are not listed from here on"})
		}
	}
}
