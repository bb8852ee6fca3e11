package sql

import (
	_ "embed"
	"strings"
)

// relations.txt lists the tables and views of pg_catalog, of PostgreSQL 12 to 18: pg_catalog comes first in every search
// path that does not name it. A name that is not in the list may be anybody's, whatever it begins with.
//
//go:embed relations.txt
var relationList string

var systemRelations = func() map[string]bool {
	m := map[string]bool{}
	for _, r := range strings.Fields(relationList) {
		m[r] = true
	}
	return m
}()

// systemRelation returns the name of a relation within pg_catalog, if it may be one: a later server has more than the list.
func systemRelation(full string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(full, "pg_catalog."); ok {
		return name, true
	}
	return full, strings.HasPrefix(full, "pg_") && !strings.Contains(full, ".")
}
