package segment

import (
	"fmt"
	"time"
)

// Locked is the error of a store that cannot remove something yet, though nothing is wrong.
type Locked struct {
	Until time.Time // the latest; zero: it cannot be told
	Parts int       // segments that stay
}

// Error says until when.
func (l *Locked) Error() string {
	return fmt.Sprintf("archive: %d segments are locked, the last until %s", l.Parts, l.Until.UTC().Format(time.RFC3339))
}

// Without returns a segment without the frames of some sessions. What is no frame is kept as it is.
func Without(b []byte, frames []Frame, gone map[string]bool) []byte {
	var out []byte
	at := 0
	for _, f := range frames {
		if gone[f.Session] {
			out = append(out, b[at:int(f.Offset)-FrameHead]...)
			at = int(f.Offset) + int(f.Size)
		}
	}
	return append(out, b[at:]...)
}
