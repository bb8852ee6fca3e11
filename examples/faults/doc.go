// Package faults breaks the real gateway on purpose: a private PostgreSQL behind the weir binary, and one thing wrong
// at a time. Each test looks for four things: the error says what, where and what to do; no secret is in any output,
// log or record; nothing recorded is lost (weir verify); and other sessions go on. A test whose guard can be blind has
// a control beside it, which plants what the guard has to find.
//
//	go test ./examples/faults           # everything, about two minutes on two cores
//	go test -short ./examples/faults    # without the longest
//	WEIR_BINARY=/usr/bin/weir go test ./examples/faults
//
// The tests need Linux: they read /proc, send signals and bound processes.
package faults
