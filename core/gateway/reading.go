package gateway

import (
	"context"
	"strings"
)

// actRead is the act of reading recordings. The files are read by who asks: the gateway says whether they may, and keeps
// who did.
const actRead = "recordings.read"

// Reading is what somebody is about to read.
type Reading struct {
	Sessions []string `json:"sessions"` // none: more than can be named
	How      string   `json:"how"`      // the command: show, replay, export, find …
	Query    string   `json:"query"`    // what is looked for, where that chooses the sessions
}

// Recording is what is known of a session that was recorded, for who judges its reading.
type Recording struct {
	Session  string `json:"session"`
	Identity string `json:"identity"`
	Target   string `json:"target"`
	Protocol string `json:"protocol"`
	Run      string `json:"run"`
}

// Recordings knows what was recorded.
type Recordings interface {
	// About returns what is known of some sessions. Those that are not known are left out.
	About(ctx context.Context, sessions []string) ([]Recording, error)
}

// maxNamed bounds the sessions that a reading names.
const maxNamed = 30

func (a *api) readingOf(c *call) (string, map[string]any) {
	r := c.body.(*Reading)
	d := map[string]any{"how": r.How}
	if r.Query != "" {
		d["query"] = r.Query
	}
	named := r.Sessions
	if len(named) > maxNamed {
		d["sessions"] = len(named)
		named = nil
	}
	if known := a.g.Recordings; known != nil && len(named) > 0 {
		if list, err := known.About(c.Context(), named); err == nil {
			d["recordings"] = list
		}
	}
	return strings.Join(named, " "), d
}
