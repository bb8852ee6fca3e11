package core

import "testing"

func TestClassOf(t *testing.T) {
	for typ, want := range map[string]Class{
		"text": ClassText, "VARCHAR(20)": ClassText, "character varying(3)": ClassText, "json": ClassJSON, "jsonb": ClassJSON,
		"int4": ClassNumber, "numeric(10,2)": ClassNumber, "bigint(20) unsigned": ClassNumber, "BOOL": ClassBool,
		"timestamp(3) with time zone": ClassTime, "uuid": ClassUUID, "bytea": ClassBytes, "_text": ClassArray, "int4[]": ClassArray,
		"inet": ClassOther, "mood": ClassUnknown, "": ClassUnknown, "pg_catalog.int4": ClassNumber,
	} {
		if got := ClassOf(typ); got != want {
			t.Errorf("ClassOf(%q) = %v, want %v", typ, got, want)
		}
	}
}

func TestWantsColumn(t *testing.T) {
	for _, c := range []struct {
		pattern string
		column  Column
		want    bool
	}{
		{"*", Column{Name: "a/b"}, true},
		{"e*", Column{Name: "E/mail"}, true},
		{"e?ail", Column{Name: "email"}, true},
		{"e?ail", Column{Name: "emmail"}, false},
		{"*mail*", Column{Name: "user_mail_2"}, true},
		{"*a*b", Column{Name: "xaxbxb"}, true},
		{"*a*b", Column{Name: "xaxbxc"}, false},
		{"type:text", Column{Type: "varchar"}, true},
		{"type:text", Column{Type: "jsonb"}, true},
		{"type:text", Column{Type: "_text"}, true},
		{"type:text", Column{Type: "_int4"}, false},
		{"type:text", Column{Type: "my_domain"}, true},
		{"type:text", Column{Type: "int8"}, false},
		{"type:number", Column{Type: "int8"}, true},
		{"text", Column{Type: "text", Name: "x"}, false},
	} {
		s := Subscription{Columns: []string{c.pattern}}
		if got := s.WantsColumn(&c.column); got != c.want {
			t.Errorf("%q wants %+v = %v, want %v", c.pattern, c.column, got, c.want)
		}
	}
	if u := (&Subscription{Columns: []string{"type:text", "type:txt"}}).Unknown(); u != "type:txt" {
		t.Errorf("Unknown = %q", u)
	}
}
