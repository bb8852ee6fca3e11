// Package limits holds no code but tests: what the real gateway does, and how much memory it takes for that, when clients
// or servers ask too much of it. Each bound is a number that a test asserts.
//
// `make soak-postgres` and `make idle-postgres` run two of them with sizes that take minutes.
package limits
