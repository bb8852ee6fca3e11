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
