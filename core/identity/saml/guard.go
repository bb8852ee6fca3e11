package saml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	roundtrip "github.com/mattermost/xml-roundtrip-validator"
)

// Bounds of a document, before anything is made of it.
const (
	maxResponse = 256 << 10 // bytes
	maxMetadata = 1 << 20
	maxDepth    = 64
	maxElements = 20_000
	// maxParts bounds the elements of a response: goxmldsig stops at 1,000, and crewjam/saml panics when it does.
	maxParts      = 900
	maxAttributes = 64 // of one element
)

// guard refuses a document that two readers could read differently, or that costs more to read than it is worth: it is
// read once here, token by token, and nothing is kept.
func guard(b []byte, most int) error {
	switch {
	case len(b) > most:
		return refuse("size", "the document is larger than %d KiB", most>>10)
	case !utf8.Valid(b):
		return refuse("xml", "the document is not UTF-8")
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	depth, elements, roots := 0, 0, 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return refuse("xml", "the document is not well-formed XML")
		}
		switch t := t.(type) {
		case xml.Directive:
			return refuse("dtd", "the document has a DTD or another declaration")
		case xml.Comment:
			if most == maxResponse { // which readers count into texts, or out of them
				return refuse("comment", "the response has a comment")
			}
		case xml.ProcInst:
			if t.Target != "xml" || elements > 0 {
				return refuse("xml", "the document has a processing instruction")
			}
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(t)) > 0 {
				return refuse("xml", "the document has text beside its root")
			}
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
			elements++
			if most == maxResponse && elements > maxParts {
				return refuse("size", "the response has more than %d elements: have the provider send only the groups and attributes that matter here", maxParts)
			}
			if depth > maxDepth || elements > maxElements || len(t.Attr) > maxAttributes || roots > 1 {
				return refuse("xml", "the document is nested too deeply, too large, or has more than one root")
			}
			if err := attributes(t.Attr); err != nil {
				return err
			}
		case xml.EndElement:
			depth--
		}
	}
	if roots != 1 {
		return refuse("xml", "the document is empty")
	}
	if roundtrip.Validate(bytes.NewReader(b)) != nil { // GHSA-4hq8-gmxx-h6w9
		return refuse("xml", "the document would read otherwise after it was written again")
	}
	return nil
}

// attributes refuses one name twice, which Go's reader takes and others do not, and ids in disguise.
func attributes(list []xml.Attr) error {
	seen := map[xml.Name]bool{}
	for _, a := range list {
		if seen[a.Name] {
			return refuse("xml", "an element has an attribute twice")
		}
		seen[a.Name] = true
		if a.Name.Space != "" && a.Name.Space != "xmlns" && strings.EqualFold(a.Name.Local, "id") {
			return refuse("id", "an element has an ID of a namespace")
		}
		if a.Name.Space == "xmlns" && (a.Name.Local == "xml" || a.Name.Local == "xmlns") {
			return refuse("xml", "a reserved prefix is declared anew")
		}
	}
	return nil
}
