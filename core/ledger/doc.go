// Package ledger is the proof: how records become blocks that are chained by their hashes, how a session's seal and
// heads become leaves of an RFC 6962 log whose checkpoints are signed, and how all of it is verified offline with a
// public key and nothing else.
//
// The formats are open and written down in core/ARCHIVE.md; nothing in them needs this package to be read.
package ledger
