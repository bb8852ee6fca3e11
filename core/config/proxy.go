package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses in ProxyProtocol. What is no address there is left out: check has told of it.
func (t *Target) Proxies() (out []netip.Prefix) {
	for _, s := range t.ProxyProtocol {
		if p, err := prefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// prefix reads a network, or an address as a network of its own.
func prefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address such as 192.0.2.7, or a network such as 10.0.0.0/8", s)
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits beside the network: %s", s, p.Masked())
	}
	return p, nil
}

// proxies checks whose word counts about where clients come from.
func (k *checker) proxies() {
	listed := map[string]*Target{} // by listener
	for i := range k.Targets {
		t := &k.Targets[i]
		at := t.At("proxy_protocol")
		switch {
		case !k.set(at):
			continue
		case t.Listen == "":
			k.problem(at, "set it where listen stands", "would do nothing: the target has no listen of its own")
			continue
		case len(t.ProxyProtocol) == 0:
			k.problem(at, "leave the key out where there is no proxy", "lists no proxy")
			continue
		}
		for j, s := range t.ProxyProtocol {
			p, err := prefix(s)
			switch path := fmt.Sprintf("%s[%d]", at, j); {
			case err != nil:
				k.problem(path, "", "%s", err)
			case p.Bits() == 0:
				k.warn(path, "list the proxies' own addresses", "everybody who can connect may say where they come from")
			}
		}
		if other := listed[t.Listen]; other != nil && !slices.Equal(other.ProxyProtocol, t.ProxyProtocol) {
			k.problem(at, "write the same list, or set it once", "%s has another list for the same listener", other.At("proxy_protocol"))
		}
		listed[t.Listen] = t
	}
}
