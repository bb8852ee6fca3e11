package index

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// dialect is what SQLite and PostgreSQL do not have in common. Statements are written with question marks.
type dialect interface {
	// bind returns a statement as the database's driver wants it.
	bind(s string) string
	// text returns a text as the database can store and find it.
	text(s string) string
	// lock keeps other writers out until the transaction ends.
	lock(ctx context.Context, tx *sql.Tx) error
	// saveText stores a text that is new, so that a piece of it is found.
	saveText(ctx context.Context, tx *sql.Tx, sha []byte, body string) (id int64, err error)
	// saveWords stores words of a session's answers.
	saveWords(ctx context.Context, tx *sql.Tx, session, words string) error
	// forget removes the words of a session's answers, and orphans the texts that nobody uses any more.
	forget(ctx context.Context, tx *sql.Tx, session string) error
	orphans(ctx context.Context, tx *sql.Tx) error
	// shrink takes removed texts out of the database's own files, as far as it has a way to.
	shrink(ctx context.Context, x *Index) error
	// grepTexts are the sessions one of whose texts has the piece, grepWords those whose answers have every word.
	grepTexts(piece string) set
	grepWords(words []string) set
	// among tests a value against a query in parentheses that gives a few, which are looked up one by one.
	among(query string) string
	// inOrder joins so that the table on the left is read first, in its order.
	inOrder() string
}

// numbered turns question marks into $1, $2 and so on. None of the index's statements has one inside a text.
func numbered(s string) string {
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(s, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		s = after
	}
}

// execAll runs statements one after the other.
func execAll(ctx context.Context, tx *sql.Tx, statements ...string) error {
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
