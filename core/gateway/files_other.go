//go:build !unix

package gateway

func maxFiles() (int, bool) { return 0, false }
