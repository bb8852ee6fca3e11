package postgres

import (
	"context"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// A COPY TO STDOUT says only how many columns it has. Where a step wants to know which, Weir has the server describe the
// same query before: Parse locks the tables and views that it reads, and keeps them locked until the transaction ends.
// So nobody can change them before the COPY has run, provided that it runs in the same transaction. Outside a
// transaction block that is one without a Sync in between; a Query message after Parse goes on with what Parse began.

// copyName is the prepared statement by which Weir asks for the shape of a COPY.
const copyName = "weir_copy"

// asksCopy reports whether a script is a COPY TO STDOUT whose columns a step wants to know.
func (c *connection) asksCopy(script *sql.Script) bool {
	if len(script.Statements) != 1 || script.Statements[0].Copy == nil {
		return false
	}
	copying := script.Statements[0].Copy
	return !copying.From && copying.Select != "" && c.session.Judges(core.KindColumns)
}

// question is what the server says to a question that the reader of requests waits for.
type question struct {
	asker  reply // the client's message
	answer chan answer
}

type answer byte

const (
	answerShape  answer = iota // the server has told the shape
	answerFailed               // it has failed, and the client does not know
	answerSaid                 // it has failed, and the client has been told so in answer to its message
)

// askCopy asks the server for the columns of a COPY. The returned statement learns them before the COPY begins.
func (c *connection) askCopy(script *sql.Script, q *question) (*statement, error) {
	s := &statement{name: copyName, script: script, question: q}
	for _, a := range []struct {
		typ  byte
		body string
		r    reply
	}{
		{'P', copyName + "\x00" + script.Statements[0].Copy.Select + "\x00\x00\x00", reply{kind: 'P', own: true}},
		{'D', "S" + copyName + "\x00", reply{kind: 'D', stmt: s, own: true}},
		{'C', "S" + copyName + "\x00", reply{kind: 'C', own: true}},
	} {
		if err := c.send(appendFrame(nil, a.typ, []byte(a.body)), a.r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// queryCopy passes on a COPY of the simple protocol when its question has been answered. Where the question is wrong the
// COPY is so as well, and says itself why; but not in a transaction block, which has failed with the question.
//
// It is not asked in the midst of a client's pipeline: where that has failed, the server skips the question.
func (c *connection) queryCopy(ctx context.Context, frame []byte, r reply) (err error) {
	c.asking.Store(true)
	defer c.asking.Store(false)
	q := &question{asker: r, answer: make(chan answer, 1)}
	if r.stmt, err = c.askCopy(r.script, q); err != nil {
		return err
	}
	c.deadline.begin(r.exchange.Limit.Time)
	c.request.out = appendFrame(c.request.out, 'H', nil)
	if err := c.session.Settle(ctx, c.request.settle); err != nil {
		return err
	}
	if err := c.ask(ctx); err != nil {
		return err
	}
	c.request.out = c.request.out[:0]
	core.WillWait(ctx)
	select {
	case <-c.gone:
		return errGone
	case a := <-q.answer:
		switch a {
		case answerSaid:
			return c.send(appendFrame(nil, 'S', nil), reply{kind: 'S'})
		case answerFailed:
			if err := c.send(appendFrame(nil, 'S', nil), reply{kind: 'S', own: true}); err != nil {
				return err
			}
		}
		return c.send(frame, r)
	}
}

// questionFailed takes in that the server has failed Weir's own question, with the error given. It returns the client's
// message that this answers, if the client is to be told now.
func (c *connection) questionFailed(b []byte) (asker reply, tell bool) {
	s, behind := c.queue.dropQuestion()
	if s == nil || s.question == nil {
		return behind, true
	}
	wrong := false // by itself, and not because it was cancelled, say
	fields(b, func(typ byte, v []byte) {
		wrong = wrong || typ == 'C' && (strings.HasPrefix(string(v), "42") || strings.HasPrefix(string(v), "3F"))
	})
	if wrong && !c.session.InTransaction() {
		s.question.answer <- answerFailed
		return reply{}, false
	}
	s.question.answer <- answerSaid
	return s.question.asker, true
}

// dropQuestion drops Weir's own question at the head. It returns what was asked about, and what is owed behind it.
func (q *queue) dropQuestion() (asked *statement, behind reply) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; q.n > 0 && q.ring[q.head].own && q.ring[q.head].kind != 'S'; q.drop() {
		if s := q.ring[q.head].stmt; s != nil {
			asked = s
		}
	}
	if q.n > 0 {
		behind = q.ring[q.head]
	}
	return asked, behind
}

// answered tells the one who waits for it that the server has told the shape of a statement.
func (s *statement) answered() {
	if s != nil && s.question != nil {
		s.question.answer <- answerShape
	}
}

// copyError turns what the server says of Weir's question into what it would have said of the COPY of a table, which
// has no place in the text of its own and no hint (a schema that is missing, it would name). Where a query is copied the two
// are the same.
func copyError(frame, b []byte, head reply) (newFrame, newBody []byte) {
	if head.script == nil || len(head.script.Statements) != 1 || head.script.Statements[0].Copy == nil || head.script.Statements[0].Copy.Table == "" {
		return frame, b
	}
	table := head.script.Statements[0].Copy.Table
	table = table[strings.LastIndexByte(table, '.')+1:]
	out, at := beginFrame(nil, frame[0])
	missing := false
	fields(b, func(typ byte, v []byte) {
		text := string(v)
		switch typ {
		case 'C':
			missing = text == codeUndefinedColumn
		case 'P', 'H':
			return
		case 'M':
			if name, ok := strings.CutSuffix(text, " does not exist"); ok && missing {
				text = name + ` of relation "` + table + `" does not exist`
			}
		}
		out = append(append(append(out, typ), text...), 0)
	})
	out = endFrame(append(out, 0), at)
	return out, out[headerSize:]
}
