// Package reactor carries many clear-text connections on a few threads.
//
// A connection of package net costs a parked goroutine for each direction, a read that finds nothing after each that
// finds something, and a wake-up by the scheduler for each message. A reactor asks the kernel for all of its
// connections at once and runs what has to be done for each in turn, on the thread that asked.
//
// What has to be done is a step: one read and what follows from it. A step may wait. Then it says so (Conn.Yield, which
// core.WillWait reaches by the context), another goroutine goes on for the other connections, and the step ends where it
// is, as any goroutine would. A step that waits for something that can call back returns Paused instead, which costs no
// goroutine: Conn.Resume has it called again. A step that computes for too long is noticed within some milliseconds and treated the
// same, so one session's trouble stays its own.
package reactor

import "errors"

// ErrAgain is what Conn.Read returns when nothing has come: the step is called again when something has.
var ErrAgain = errors.New("reactor: nothing to read yet")

// Step deals with what a connection has for reading: it calls Conn.Read once, or goes on where it paused. buffer is for
// its use until it returns.
type Step func(buffer []byte) Next

// Next is what a step leaves to be done.
type Next uint8

// What a step may leave.
const (
	Again  Next = iota // call it when there is something to read
	Paused             // call it after Conn.Resume, and not before
	Over               // do not call it any more
)

// BufferSize is the length in bytes of the buffer that a step is lent.
const BufferSize = 256 << 10
