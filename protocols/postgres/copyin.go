package postgres

import "github.com/weir-gateway/weir/core"

// copyIn gives the messages of COPY data from the client after the steps have had their say: as they came, or in one
// message what the steps made of the data.
type copyIn struct {
	c      *connection
	start  int // where they begin in client.in; they end at client.r
	frames []byte
}

// Wire implements core.Frame.
func (f *copyIn) Wire(e *core.Event, v *core.Verdict) ([]byte, error) {
	q, l := &f.c.request, &f.c.client
	f.frames = l.in[f.start:l.r]
	if !v.Changed {
		return l.in[q.kept:l.r], nil
	}
	f.frames = appendFrame(nil, 'd', e.Bytes)
	return append(append([]byte(nil), l.in[q.kept:f.start]...), f.frames...), nil
}
