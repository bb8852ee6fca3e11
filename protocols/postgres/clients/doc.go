// Package clients holds no code but tests: the programs and drivers that people use, run against PostgreSQL through the
// real gateway. Each is told another host, port and password than it would be for the server, and nothing else.
//
// The drivers all hold the same conversation, of which conversation_test.go has the expected lines. What a machine lacks
// is installed from Debian where the tests run as root; otherwise the test of that client is skipped and says why.
package clients
