package ssh

import (
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

var (
	_ core.Connector = (*Protocol)(nil)
	_ core.Keyed     = (*Protocol)(nil)
)

// HostKey implements core.Keyed: the key as in authorized_keys.
func (*Protocol) HostKey(t *core.Target, k core.Keyholder) string {
	key := shownKey(t, k)
	if key == nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// Connect implements core.Connector. The line holds the gateway's host key, so that whoever copies it trusts nobody at first
// sight. Of the variables git and rsync find the rest, and sshpass -e the token.
func (p *Protocol) Connect(t *core.Target, c core.Contact) (string, map[string]string) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return "", nil
	}
	words := []string{"ssh", "-p", port}
	if text := p.HostKey(t, c.Key); text != "" {
		words = append(words, "-o", shellWord("KnownHostsCommand=/bin/echo ["+host+"]:"+port+" "+text), "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/dev/null")
	}
	program := strings.Join(append(words, "-l", shellWord(t.Name), "-o", "HostName="+host), " ")
	env := map[string]string{"GIT_SSH_COMMAND": program, "RSYNC_RSH": program}
	if c.Token != "" {
		env["SSHPASS"] = c.Token
	}
	return strings.Join(append(words, shellWord(t.Name+"@"+host)), " "), env
}

// shownKey is the host key that clients of a target see, or nil.
func shownKey(t *core.Target, k core.Keyholder) ssh.PublicKey {
	if s, err := settingsOf(t); err == nil && s.HostKey != "" {
		if key, err := readHostKey(s.HostKey); err == nil {
			return key.PublicKey()
		}
		return nil
	}
	if k == nil {
		return nil
	}
	own, err := keysOf(k.Key)
	if err != nil {
		return nil
	}
	return own.host.PublicKey()
}

// shellWord writes a word for a shell, and for rsync, which knows quotes as well.
func shellWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " '\"\\$`!*?[](){}<>|&;#~\t\n") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
