package postgres

import (
	"sync"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// A reply is what the upstream still owes for one message of the client. The server answers messages in order
// (manual, "Message Flow"), so the replies are a queue, and each answer belongs to the one at its head.
type reply struct {
	kind     byte // the client's message: Q P B D E C S F
	exchange *core.Exchange
	script   *sql.Script   // of Q, and of E
	at       int           // which statement of the script is being answered
	body     *core.Command // what EXECUTE or FETCH stands for, where it is one thing only
	refusal  *core.Denial  // the message was refused: something that fails went upstream in its place
	stmt     *statement    // of P, and of D and C when they name a statement; of Q and E: the shape of their COPY
	portal   *portal       // of B, E, and of D when it names a portal
	own      bool          // Weir asked this itself: the answer is not for the client
	planned  bool          // the Columns of the present answer have been judged
	columns  []core.Column // of the present answer
	closing  string        // of C: the statement's name
}

// queue is a ring of replies. One goroutine pushes, the other one takes.
type queue struct {
	mu   sync.Mutex
	ring []reply
	head int
	n    int
	// failed is set after an error until the client says Sync: the server answers nothing before.
	failed bool
}

// maxPipeline bounds how many messages of a client may be unanswered.
const maxPipeline = 1 << 16

// push adds a reply, and reports whether there was room for it. owed is false when there will be none.
func (q *queue) push(r reply) (owed, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n >= maxPipeline {
		return false, false
	}
	if q.failed && r.kind != 'S' {
		return false, true
	}
	q.failed = false
	if q.n == len(q.ring) {
		bigger := make([]reply, max(8, 2*len(q.ring)))
		for i := range q.n {
			bigger[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = r
	q.n++
	return true, true
}

// peek returns a copy of the reply at the head; ok is false when nothing is owed.
func (q *queue) peek() (r reply, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return reply{}, false
	}
	return q.ring[q.head], true
}

// set replaces the reply at the head.
func (q *queue) set(r reply) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n > 0 {
		q.ring[q.head] = r
	}
}

func (q *queue) pop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop()
}

func (q *queue) drop() {
	if q.n > 0 {
		q.ring[q.head] = reply{}
		q.head = (q.head + 1) % len(q.ring)
		q.n--
	}
}

// skipToSync drops what the server will not answer after an error: everything up to the next Sync, also what is yet to
// be asked. It returns the replies dropped.
func (q *queue) skipToSync() (dropped []reply) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n > 0 && q.ring[q.head].kind != 'S' {
		dropped = append(dropped, q.ring[q.head])
		q.drop()
	}
	q.failed = q.n == 0
	return dropped
}

// executeOf returns the exchange of the Execute that comes next for this portal, if it has been asked for already.
func (q *queue) executeOf(p *portal) *core.Exchange {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := 1; i < q.n; i++ {
		switch r := &q.ring[(q.head+i)%len(q.ring)]; {
		case r.kind == 'E' && r.portal == p:
			return r.exchange
		case r.kind == 'S':
			return nil
		}
	}
	return nil
}

// plannedExecute marks that the columns of the next Execute of p have been judged already.
func (q *queue) plannedExecute(p *portal, columns []core.Column) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := 1; i < q.n; i++ {
		if r := &q.ring[(q.head+i)%len(q.ring)]; r.kind == 'E' && r.portal == p {
			r.planned, r.columns = true, columns
			return
		}
	}
}

// alone reports whether nothing has been asked beyond the ReadyForQuery that the head leads to.
func (q *queue) alone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.n {
		if k := q.ring[(q.head+i)%len(q.ring)].kind; k == 'S' || i == 0 && (k == 'Q' || k == 'F') {
			return i == q.n-1
		}
	}
	return true
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n == 0
}
