package clients

import (
	"strings"
	"testing"
)

// conversation is what every driver must print: a line for each thing that it has tried with its own means.
const conversation = `masked: 1 Ada a**@example.com
parameters: 2 Bob null
prepared: Ada Bob Ada Bob Ada Bob Ada Bob
kinds: 12.50 true 2026-01-02 1,2 1
refused: 42501; rule no-ddl; open a migration
usable: 1
unbounded: 42501; rule no-unbounded-write; add a WHERE
transaction: 42501 25P02 0
written: 2
copy out: 1 Ada, 2 Bob
copy in: 3
copy refused: 42501; rule no-unbounded-write; add a WHERE
cancelled: 57014
end: 1
`

// refusals is how many statements of the conversation are refused.
const refusals = 4

// converse compares what a driver printed with the conversation, but for the lines of what it cannot do.
func converse(t *testing.T, name, got string, cannot ...string) {
	t.Helper()
	var want strings.Builder
	denials := refusals
lines:
	for line := range strings.Lines(conversation) {
		for _, c := range cannot {
			if strings.HasPrefix(line, c+":") {
				if strings.Contains(line, "42501") {
					denials--
				}
				continue lines
			}
		}
		want.WriteString(line)
	}
	if got != want.String() {
		t.Fatalf("%s printed:\n%s\nbut should have:\n%s", name, got, want.String())
	}
	if n := denied(t, name); n != denials {
		t.Errorf("the archive has %d refusals of %s, not %d", n, name, denials)
	}
	if out := direct(t, "orders", "select count(*) from customers"); out != "2" {
		t.Errorf("the table has %s rows", out)
	}
}

// control shows that the statements which are refused would have been done: without the gateway they are.
func TestConversationBites(t *testing.T) {
	if out := direct(t, "orders", "begin; delete from customers; select count(*) from customers; drop table kinds; rollback; select email from customers where id = 1"); out != "0\nada@example.com" {
		t.Fatal(out)
	}
}
