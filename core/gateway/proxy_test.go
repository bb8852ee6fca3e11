package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/reactor"
)

// v2 makes a header of version 2; length -1 is the true one.
func v2(command, family byte, body []byte, length int) string {
	b := append([]byte(nil), signatureV2...)
	b = append(b, 0x20|command, family)
	if length < 0 {
		length = len(body)
	}
	return string(append(binary.BigEndian.AppendUint16(b, uint16(length)), body...))
}

// from4 is the address part of a connection from an address over IPv4.
func from4(ip string, port uint16) []byte {
	a := netip.MustParseAddr(ip).As4()
	b := append(a[:], 127, 0, 0, 1)
	return append(binary.BigEndian.AppendUint16(b, port), 0x15, 0x38)
}

func from6(ip string, port uint16) []byte {
	a := netip.MustParseAddr(ip).As16()
	b := append(a[:], make([]byte, 16)...)
	return append(binary.BigEndian.AppendUint16(b, port), 0x15, 0x38)
}

func tlv(typ byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{typ}, uint16(len(value))), value...)
}

// sealed is a header with a checksum, which flip makes wrong.
func sealed(flip byte) string {
	b := []byte(v2(1, 0x11, append(append(from4("203.0.113.7", 4711), tlv(0x03, make([]byte, 4))...), tlv(0x01, []byte("h2"))...), -1))
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(b[len(b)-9:], sum)
	b[len(b)-9] ^= flip
	return string(b)
}

const after = "\x00\x00\x00\x08what the client says"

// TestProxyHeader: every header says whose connection it is, whichever pieces it comes in, and not a byte after it is read.
func TestProxyHeader(t *testing.T) {
	for name, tc := range map[string]struct{ header, told string }{
		"v1":                      {"PROXY TCP4 203.0.113.7 127.0.0.1 4711 5432\r\n", "203.0.113.7:4711"},
		"v1 over IPv6":            {"PROXY TCP6 2001:db8::7 ::1 4711 5432\r\n", "[2001:db8::7]:4711"},
		"v1, the longest":         {"PROXY TCP6 2fff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff 65535 65535\r\n", ""},
		"v1, unknown":             {"PROXY UNKNOWN\r\n", ""},
		"v1, unknown with more":   {"PROXY UNKNOWN ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n", ""},
		"v2":                      {v2(1, 0x11, from4("203.0.113.7", 4711), -1), "203.0.113.7:4711"},
		"v2 over IPv6":            {v2(1, 0x21, from6("2001:db8::7", 4711), -1), "[2001:db8::7]:4711"},
		"v2 with more":            {v2(1, 0x11, append(from4("203.0.113.7", 4711), append(tlv(0x05, []byte("id")), tlv(0xEA, []byte("vpce-1"))...)...), -1), "203.0.113.7:4711"},
		"v2 with padding":         {v2(1, 0x11, append(from4("203.0.113.7", 4711), tlv(0x04, make([]byte, 500))...), -1), "203.0.113.7:4711"},
		"v2, the longest":         {v2(1, 0x11, append(from4("203.0.113.7", 4711), tlv(0x04, make([]byte, maxProxyV2-15))...), -1), "203.0.113.7:4711"},
		"v2 with a checksum":      {sealed(0), "203.0.113.7:4711"},
		"v2, a health check":      {v2(0, 0x00, nil, -1), ""},
		"v2, one with an address": {v2(0, 0x11, from4("203.0.113.7", 4711), -1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for at := range len(tc.header) + 1 { // split at each byte
				r := io.MultiReader(strings.NewReader(tc.header[:at]), strings.NewReader(tc.header[at:]+after))
				told, own, err := readProxyHeader(r)
				if name == "v1, the longest" {
					if err != nil || told == nil {
						t.Fatalf("split at %d: %v %v", at, told, err)
					}
				} else if got := addrText(told); err != nil || got != tc.told {
					t.Fatalf("split at %d: %s %v", at, got, err)
				}
				if own != strings.Contains(name, "v2, a health") && name != "v2, one with an address" {
					t.Fatalf("own: %v", own)
				}
				if rest, _ := io.ReadAll(r); string(rest) != after {
					t.Fatalf("split at %d: left of the client: %q", at, rest)
				}
			}
			if told, _, err := readProxyHeader(iotest.OneByteReader(strings.NewReader(tc.header))); err != nil || tc.told != "" && addrText(told) != tc.told {
				t.Fatalf("byte by byte: %v %v", told, err)
			}
		})
	}
}

// bad are headers that no client gets in by.
var bad = map[string]string{
	"no header":                    after,
	"TLS":                          "\x16\x03\x01\x02\x00\x01\x00",
	"half a signature":             "PROXI TCP4 203.0.113.7 127.0.0.1 4711 5432\r\n",
	"v1 in small letters":          "proxy tcp4 203.0.113.7 127.0.0.1 4711 5432\r\n",
	"v1 without its addresses":     "PROXY TCP4\r\n",
	"v1 with an empty line":        "PROXY \r\n",
	"v1 without CR":                "PROXY TCP4 203.0.113.7 127.0.0.1 4711 5432\n",
	"v1, two spaces":               "PROXY TCP4  203.0.113.7 127.0.0.1 4711 5432\r\n",
	"v1, another protocol":         "PROXY UDP4 203.0.113.7 127.0.0.1 4711 5432\r\n",
	"v1, IPv6 said to be IPv4":     "PROXY TCP4 2001:db8::7 127.0.0.1 4711 5432\r\n",
	"v1, a name":                   "PROXY TCP4 localhost 127.0.0.1 4711 5432\r\n",
	"v1, octets with zeros":        "PROXY TCP4 0203.0.113.7 127.0.0.1 4711 5432\r\n",
	"v1, a port too many":          "PROXY TCP4 203.0.113.7 127.0.0.1 4711 5432 1\r\n",
	"v1, a port that is none":      "PROXY TCP4 203.0.113.7 127.0.0.1 70000 5432\r\n",
	"v1, a negative port":          "PROXY TCP4 203.0.113.7 127.0.0.1 -1 5432\r\n",
	"v1, from nowhere":             "PROXY TCP4 0.0.0.0 127.0.0.1 4711 5432\r\n",
	"v1, from a multicast group":   "PROXY TCP4 224.0.0.1 127.0.0.1 4711 5432\r\n",
	"v1 without an end":            "PROXY TCP4 " + strings.Repeat("1", 200),
	"v1, cut":                      "PROXY TCP4 203.0.113.7 127.0",
	"v2, cut":                      v2(1, 0x11, from4("203.0.113.7", 4711), -1)[:20],
	"v2, only a signature":         string(signatureV2),
	"v2, version 1":                strings.Replace(v2(1, 0x11, from4("203.0.113.7", 4711), -1), "\x21\x11", "\x11\x11", 1),
	"v2, an unknown command":       v2(2, 0x11, from4("203.0.113.7", 4711), -1),
	"v2, an unknown family":        v2(1, 0x41, from4("203.0.113.7", 4711), -1),
	"v2, an unknown transport":     v2(1, 0x13, from4("203.0.113.7", 4711), -1),
	"v2, UDP":                      v2(1, 0x12, from4("203.0.113.7", 4711), -1),
	"v2, a Unix socket":            v2(1, 0x31, make([]byte, 216), -1),
	"v2, unspecified for a client": v2(1, 0x00, nil, -1),
	"v2, shorter than it says":     v2(1, 0x11, from4("203.0.113.7", 4711), 400),
	"v2, longer than it says":      v2(1, 0x11, from4("203.0.113.7", 4711), 4),
	"v2, IPv6 in the room of IPv4": v2(1, 0x21, from4("203.0.113.7", 4711), -1),
	"v2, an extension cut short":   v2(1, 0x11, append(from4("203.0.113.7", 4711), 0x05, 0xff, 0xff, 'x'), -1),
	"v2, oversized":                v2(1, 0x11, append(from4("203.0.113.7", 4711), tlv(0x04, make([]byte, maxProxyV2))...), -1),
	"v2, as long as can be said":   v2(1, 0x11, nil, 65535),
	"v2, a wrong checksum":         sealed(1),
	"v2, from nowhere":             v2(1, 0x11, from4("0.0.0.0", 4711), -1),
}

func TestBadProxyHeader(t *testing.T) {
	for name, header := range bad {
		for _, r := range []io.Reader{strings.NewReader(header), iotest.OneByteReader(strings.NewReader(header))} {
			if told, own, err := readProxyHeader(r); err == nil {
				t.Errorf("%s: taken for %v %v", name, told, own)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, header := range bad {
		f.Add([]byte(header))
	}
	f.Add([]byte(sealed(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		told, _, err := readProxyHeader(in)
		if read := len(b) - in.Len(); read > headV2+maxProxyV2 {
			t.Errorf("%d bytes were read", read)
		}
		if err == nil && told != nil {
			if tcp, ok := told.(*net.TCPAddr); !ok || !tcp.AddrPort().IsValid() {
				t.Errorf("told %v", told)
			}
		}
	})
}

const listed = "127.0.0.1/32"

// behind is a rig whose listener has a list of proxies.
func behind(t *testing.T, change func(*Config, *Settings), proxies ...string) *rig {
	t.Helper()
	c, _, err := LocalTLS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return start(t, func(cfg *Config, s *Settings) {
		for _, p := range proxies {
			s.Targets[0].Proxies = append(s.Targets[0].Proxies, netip.MustParsePrefix(p))
		}
		s.TLS = c
		if change != nil {
			change(cfg, s)
		}
	})
}

// through dials, sends a header in pieces, and goes on with TLS.
func (r *rig) through(pieces ...string) *talk {
	r.t.Helper()
	k := r.dial()
	for i, p := range pieces {
		if i > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := io.WriteString(k, p); err != nil {
			r.t.Fatal(err)
		}
	}
	c := tls.Client(k.Conn, &tls.Config{InsecureSkipVerify: true})
	r.t.Cleanup(func() { _ = c.Close() })
	out := *k
	out.Conn = c
	out.in.Reset(c)
	return &out
}

const ada = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 5432\r\n"

// TestProxyTold: the address that a listed proxy tells is the client's, for the record, the log, the API and the limits;
// the proxy's stands beside it.
func TestProxyTold(t *testing.T) {
	r := behind(t, func(c *Config, _ *Settings) { c.Limits.UnsignedPerSource = 2 }, listed)
	for name, pieces := range map[string][]string{
		"v1": {ada}, "v2": {v2(1, 0x11, from4("203.0.113.7", 4711), -1)}, "in pieces": {ada[:3], ada[3:20], ada[20:]},
	} {
		k := r.through(pieces...)
		k.want("one good", "ok")
		k.want("still", "still")
		facts := string(r.journal.last().records[0].Facts)
		if !strings.Contains(facts, `"client":"203.0.113.7:4711"`) || !strings.Contains(facts, `"proxy":"127.0.0.1:`) {
			t.Errorf("%s: %s", name, facts)
		}
		if live := r.Sessions(); len(live) != 1 || live[0].Client != "203.0.113.7:4711" {
			t.Errorf("%s: %+v", name, live)
		}
		_ = k.Close()
		eventually(t, "gone", func() bool { return len(r.Sessions()) == 0 })
	}
	// Each client has its own room, whatever the proxy's is.
	for i := range 2 {
		for range 2 {
			k := r.dial()
			fmt.Fprintf(k, "PROXY TCP4 198.51.100.%d 127.0.0.1 1 2\r\n", i)
		}
	}
	unsigned := func(source string) int {
		r.live.mu.Lock()
		defer r.live.mu.Unlock()
		return r.live.unsigned[source]
	}
	eventually(t, "four wait", func() bool { return unsigned("198.51.100.0") == 2 && unsigned("198.51.100.1") == 2 })
	k := r.dial()
	fmt.Fprint(k, "PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n")
	if got := k.hear(); got != "gone" {
		t.Errorf("a third of one address: %q", got)
	}
	if _, m := r.get("/metrics"); !strings.Contains(m, `weir_gateway_refused_total{reason="unsigned-connections"} 1`) {
		t.Error("not counted")
	}
	r.through("PROXY TCP6 2001:db8:1:2::9 ::1 1 2\r\n").want("one nobody", "no: ")
	if !strings.Contains(r.log.String(), "[2001:db8:1:2::9]:1") {
		t.Errorf("the log does not say who was refused: %s", r.log)
	}
	if left := unsigned(""); left != 0 {
		t.Errorf("%d are still from nowhere", left)
	}
}

// TestProxyClear: what a proxy on this machine hands on from another is not on loopback, so a token in clear is refused.
func TestProxyClear(t *testing.T) {
	r := behind(t, func(_ *Config, s *Settings) { s.TLS = nil }, listed)
	for header, want := range map[string]string{
		ada:                                      "no: refused by rule tls-required",
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n": "ok",
		v2(0, 0, nil, -1):                        "ok", // the proxy itself
		"PROXY UNKNOWN\r\n":                      "no: refused by rule tls-required",
	} {
		k := r.dial()
		fmt.Fprint(k, header+"one good\n") // with the header: nothing of it may be lost
		if got := k.hear(); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

// TestProxyRefused: a listed proxy that does not say is refused, and so is every header that cannot be read.
func TestProxyRefused(t *testing.T) {
	r := behind(t, func(_ *Config, s *Settings) { s.TLS = nil }, listed)
	k := r.dial()
	if got := k.say("one good"); got != "gone" { // first, for only the first of a kind are logged
		t.Errorf("no header: %q", got)
	}
	for name, header := range bad {
		k := r.dial()
		_, _ = io.WriteString(k, header)
		_ = k.Conn.(*net.TCPConn).CloseWrite()
		if got := k.hear(); got != "gone" {
			t.Errorf("%s: %q", name, got)
		}
	}
	want := fmt.Sprintf(`weir_gateway_refused_total{reason="proxy-header"} %d`, len(bad)+1)
	eventually(t, "all are counted", func() bool { _, m := r.get("/metrics"); return strings.Contains(m, want) })
	if len(r.journal.sessions()) > 0 {
		t.Error("a session was opened")
	}
	_ = r.dial().Close() // a check whether the port is open is no refusal
	time.Sleep(20 * time.Millisecond)
	if _, m := r.get("/metrics"); !strings.Contains(m, want) {
		t.Error("a check of the port counts as a refusal")
	}
	if !strings.Contains(r.log.String(), "send-proxy-v2") {
		t.Error("the log does not say what to do")
	}
}

// TestProxySlow: a header has the time of the sign-in, and no more.
func TestProxySlow(t *testing.T) {
	r := behind(t, func(_ *Config, s *Settings) { s.Targets[0].Target.Limits.SignIn = 150 * time.Millisecond }, listed)
	k := r.dial()
	before := time.Now()
	go func() {
		for i := range ada {
			if _, err := k.Write([]byte{ada[i]}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if got := k.hear(); got != "gone" || time.Since(before) > 2*time.Second {
		t.Errorf("%q after %v", got, time.Since(before))
	}
}

// TestProxySpoofed: who is not listed cannot say that they are another, and their header is no data either: without the list
// of proxies, which is the control, the protocol sees it.
func TestProxySpoofed(t *testing.T) {
	headers := map[string]string{"v1": ada, "v2": v2(1, 0x11, from4("203.0.113.7", 4711), -1)}
	guarded := behind(t, func(_ *Config, s *Settings) { s.TLS = nil }, "10.9.8.7/32")
	for name, header := range headers {
		for _, pieces := range [][]string{{header + "one good\n"}, {header[:1], header[1:4], header[4:] + "one good\n"}} {
			k := guarded.dial()
			for _, p := range pieces {
				_, _ = io.WriteString(k, p)
				time.Sleep(5 * time.Millisecond)
			}
			if got := k.hear(); got != "gone" {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	if _, m := guarded.get("/metrics"); !strings.Contains(m, `weir_gateway_refused_total{reason="proxy-unlisted"} 4`) {
		t.Error("not counted")
	}
	if len(guarded.journal.sessions()) > 0 {
		t.Error("the protocol has seen a header")
	}
	k := guarded.dial() // without one they are clients like others
	k.want("one good", "ok")
	k.want("PROXY is a word, too", "PROXY is a word, too")
	if facts := string(guarded.journal.last().records[0].Facts); !strings.Contains(facts, `"client":"127.0.0.1:`) {
		t.Error(facts)
	}
	open := start(t, nil)
	got := ""
	for _, header := range headers {
		k := open.dial()
		got += k.say(strings.ReplaceAll(header, "\r\n", " ") + "x") // a line to this protocol
	}
	if !strings.Contains(got, "no: target PROXY") {
		t.Errorf("the control: no header came through: %q", got)
	}
}

// TestUnlistedReads: what comes from who is not listed is passed on as it came, in whatever pieces, also where it begins
// like a header; and when it is over, so it is.
func TestUnlistedReads(t *testing.T) {
	for _, said := range []string{"", "P", "PRO", "PROXIMA", "\r\n\r\n", "\r\n\r\n\x00\r\nQUIX\n", "x", strings.Repeat("long ", 50)} {
		for _, piece := range []int{1, 2, 5, 1000} {
			a, b := net.Pipe()
			u := &unlisted{handed: handed{Conn: b}, refused: func() { t.Errorf("%q is refused", said) }}
			go func() {
				for rest := said; rest != ""; {
					n := min(piece, len(rest))
					_, _ = io.WriteString(a, rest[:n])
					rest = rest[n:]
				}
				_ = a.Close()
			}()
			got, err := io.ReadAll(iotest.OneByteReader(u))
			if string(got) != said || err != nil {
				t.Errorf("%q in pieces of %d: %q %v", said, piece, got, err)
			}
			_ = b.Close()
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	u := &unlisted{handed: handed{Conn: b}, refused: func() {}}
	_ = u.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	go io.WriteString(a, "PR")
	var timeout net.Error
	if _, err := u.Read(make([]byte, 10)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a deadline: %v", err)
	}
	if u.Socket() != nil {
		t.Error("the bare connection is given away while something of it is held")
	}
	_ = u.SetReadDeadline(time.Time{})
	go io.WriteString(a, "AY")
	if p := make([]byte, 10); true {
		if n, err := io.ReadFull(u, p[:4]); string(p[:n]) != "PRAY" || err != nil {
			t.Errorf("after a deadline: %q %v", p[:n], err)
		}
	}
	if u.Socket() != b {
		t.Error("the bare connection is kept although nothing is held")
	}
}

// TestProxyReactor: what a proxy handed on can be carried as fast as other connections: its descriptor is free, and
// what follows the header is in it.
func TestProxyReactor(t *testing.T) {
	shared, err := reactor.Shared()
	if err != nil {
		t.Skip(err)
	}
	for _, listedPeer := range []bool{true, false} {
		client, server := pair(t)
		other, _ := pair(t)
		var c net.Conn = &handed{server, &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}}
		if !listedPeer {
			c = &unlisted{handed: handed{Conn: server}, refused: func() {}}
			_, _ = io.WriteString(client, "x")
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if reactor.HungUp(c) {
			t.Error("it is said to be gone")
		}
		x, y, ok := shared.Pair(c, other)
		if !ok {
			t.Fatalf("listed %v: it cannot be carried", listedPeer)
		}
		if want := "203.0.113.7:1"; listedPeer && x.RemoteAddr().String() != want {
			t.Errorf("its address is %s", x.RemoteAddr())
		}
		_, _ = x.Close(), y.Close()
	}
	a, b := net.Pipe()
	defer a.Close()
	if _, _, ok := shared.Pair(&unlisted{handed: handed{Conn: b}}, b); ok {
		t.Error("one of which nothing was read yet is carried")
	}
}

func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// TestProxyLists: the targets of one listener have one list, and a reload changes it for who comes then.
func TestProxyLists(t *testing.T) {
	one, two := target("one", anyPort, nil), target("two", anyPort, nil)
	one.Proxies, two.Proxies = []netip.Prefix{netip.MustParsePrefix(listed)}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if _, err := New(Config{Journal: &memory{}, Protocols: []core.Protocol{&lines{}}}, Settings{Targets: []Target{one, two}, Verifier: names{}}); err == nil || !strings.Contains(err.Error(), "different proxies") {
		t.Error(err)
	}
	r := start(t, nil)
	r.dial().want("one good", "ok")
	if err := r.Reload(Settings{Targets: []Target{one}, Verifier: names{}}); err != nil {
		t.Fatal(err)
	}
	if got := r.dial().say("one good"); got != "gone" {
		t.Errorf("no header after the reload: %q", got)
	}
}
