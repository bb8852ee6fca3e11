package postgres

import (
	"net"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// Connect implements core.Connector: for psql and everything else that libpq's variables mean something to.
func (*Protocol) Connect(t *core.Target, c core.Contact) (line string, env map[string]string) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return "", nil
	}
	env = map[string]string{"PGHOST": host, "PGPORT": port, "PGDATABASE": t.Name, "PGUSER": c.User, "PGHOSTADDR": "", "PGSERVICE": "", "PGSERVICEFILE": "", "PGPASSFILE": ""}
	words := []string{"host=" + quoteWord(host), "port=" + port, "dbname=" + quoteWord(t.Name), "user=" + quoteWord(c.User)}
	if c.CA != "" {
		env["PGSSLMODE"], env["PGSSLROOTCERT"] = "verify-full", c.CA
		words = append(words, "sslmode=verify-full", "sslrootcert="+quoteWord(c.CA))
	} else {
		env["PGSSLMODE"] = "verify-full"
		words = append(words, "sslmode=verify-full")
	}
	if c.Token != "" {
		env["PGPASSWORD"] = c.Token
	}
	return "psql " + shellWord(strings.Join(words, " ")), env
}

// quoteWord writes a value of a connection string (libpq, "Keyword/Value Connection Strings").
func quoteWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " '\\\t\n") {
		return s
	}
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
}

// shellWord writes a word for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

var _ core.Connector = (*Protocol)(nil)
