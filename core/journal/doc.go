// Package journal keeps what passes: records go to a write-ahead log, from there as hash-chained blocks to JetStream.
//
//	Record ─► group in memory ─► one O_DSYNC write a group ─► durable: Settle returns
//	                                        └► packer: blocks, chained per session ─► JetStream ─► ack ─► segment reused
//
// One log is shared by all sessions: whoever waits first writes for all who wait behind. The log is what the promise
// to the client rests on; JetStream and the archive follow it, and a segment of the log is reused only when each of its
// records is in a block that JetStream holds durably.
package journal
