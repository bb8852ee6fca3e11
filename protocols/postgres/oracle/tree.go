package main

import (
	"errors"
	"strconv"
	"strings"
)

// node is one node of a tree as the server writes it to its log: {NAME :field value :field value …}.
type node struct {
	name   string
	fields map[string]*value
}

// value is what stands in a field: words, and the nodes among them, in lists or not.
type value struct {
	words []string
	nodes []*node
}

var errTree = errors.New("the server's tree cannot be read")

// maxDepth bounds how deep nodes may stand in each other.
const maxDepth = 4000

// readTree reads one tree.
func readTree(text string) (*node, error) {
	s := &scanner{text: text}
	if s.next() != "{" {
		return nil, errTree
	}
	return s.node(0)
}

type scanner struct {
	text string
	at   int
}

// next returns the next word, or one of the signs that stand for themselves. A backslash takes the meaning from what
// follows it.
func (s *scanner) next() string {
	for s.at < len(s.text) && strings.IndexByte(" \n\t", s.text[s.at]) >= 0 {
		s.at++
	}
	if s.at == len(s.text) {
		return ""
	}
	if strings.IndexByte("{}()", s.text[s.at]) >= 0 {
		s.at++
		return s.text[s.at-1 : s.at]
	}
	start := s.at
	if s.text[s.at] == '"' { // a string: up to the quotation mark that is not escaped
		for s.at++; s.at < len(s.text) && s.text[s.at] != '"'; s.at++ {
			if s.text[s.at] == '\\' {
				s.at++
			}
		}
		s.at = min(s.at+1, len(s.text))
		return s.text[start:s.at]
	}
	for s.at < len(s.text) && strings.IndexByte(" \n\t{}()", s.text[s.at]) < 0 {
		if s.text[s.at] == '\\' {
			s.at++
		}
		s.at++
	}
	s.at = min(s.at, len(s.text))
	return s.text[start:s.at]
}

func (s *scanner) node(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errTree
	}
	n := &node{name: s.next(), fields: map[string]*value{}}
	v := &value{}
	for {
		switch w := s.next(); {
		case w == "":
			return nil, errTree
		case w == "}":
			return n, nil
		case w == "{":
			child, err := s.node(depth + 1)
			if err != nil {
				return nil, err
			}
			v.nodes = append(v.nodes, child)
		case w[0] == ':' && len(w) > 1:
			v = &value{}
			n.fields[w[1:]] = v
		case w != "(" && w != ")":
			v.words = append(v.words, w)
		}
	}
}

// word returns the only word of a field, with its escapes taken away.
func (n *node) word(field string) string {
	v := n.fields[field]
	if v == nil || len(v.words) == 0 {
		return ""
	}
	var b strings.Builder
	for i, w := 0, v.words[0]; i < len(w); i++ {
		if w[i] == '\\' && i+1 < len(w) {
			i++
		}
		b.WriteByte(w[i])
	}
	return b.String()
}

func (n *node) number(field string) int {
	i, err := strconv.Atoi(n.word(field))
	if err != nil {
		return 0
	}
	return i
}

func (n *node) list(field string) []*node {
	if v := n.fields[field]; v != nil {
		return v.nodes
	}
	return nil
}

// walk calls f for a node and all below it.
func (n *node) walk(f func(*node)) {
	f(n)
	for _, v := range n.fields {
		for _, c := range v.nodes {
			c.walk(f)
		}
	}
}
