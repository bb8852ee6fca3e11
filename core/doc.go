// Package core holds the nouns of Weir, and nothing else: it imports the standard library only.
//
//	client ─► gateway: accept, TLS, who is this? ─► may they open this target? ─► protocols/X
//	   codec ─► Event ─► Session.Check [ chain ─► number ─► record ] ─► Settle ─► upstream
//	                                     └ deny ─► refusal, in the protocol's words ─► client
//	   upstream ─► codec ─► Event ─► Session.Check [ the same ] ─► Settle ─► client
//	journal: records ─► blocks (hash-chained) ─► JetStream ─► archive stores + index ─► ledger
//
// A protocol turns bytes into an [Event]. [Session.Check] is the one door through which every event goes: the chain
// of [Plugin] steps answers with a [Verdict], and what is left is kept as a [Record] before it is delivered.
// Who may import whom is a test: imports_test.go.
package core
