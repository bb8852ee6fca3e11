package gateway

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"

	"github.com/weir-gateway/weir/core"
)

// keyholder has the keys of one protocol.
type keyholder struct {
	g        *Gateway
	protocol string
}

var (
	_ core.Keyholder = keyholder{}
	_ core.Keyholder = (*client)(nil)
)

// Key implements core.Keyholder.
func (k keyholder) Key(purpose string) ([]byte, error) {
	if k.g.Secret == nil {
		return nil, errors.New("gateway: there is no key that keys of protocols could be made from")
	}
	secret, err := k.g.Secret()
	if err != nil {
		return nil, err
	}
	if len(secret) < sha256.Size {
		return nil, errors.New("gateway: the key for the keys of protocols is too short")
	}
	return hkdf.Key(sha256.New, secret, nil, "weir protocol key\x00"+k.protocol+"\x00"+purpose, 32)
}

// Key implements core.Keyholder.
func (c *client) Key(purpose string) ([]byte, error) {
	return keyholder{c.g, c.served.protocol}.Key(purpose)
}
