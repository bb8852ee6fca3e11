package detect

// maskConnection looks at an @ from the middle, for the password in scheme://user:password@host. No scheme is in reach of the @ at bare,
// and so of none behind it that could only reach one over it: to look again for each would take 512 times as long. Where there is none
// in reach of this @, it is the next.
func maskConnection(b []byte, at, bare int) (end, next int) {
	const most = 512
	if at+1 >= len(b) || class[b[at+1]]&alnum == 0 && b[at+1] != '[' && b[at+1] != '/' {
		return 0, bare
	}
	colon, j := -1, at-1
	for ; j > 1 && at-j < most; j-- {
		c := b[j]
		if c <= ' ' || c == '"' || c == '<' || c == '>' || c == '`' || j == bare {
			return 0, at
		}
		if c == '/' && b[j-1] == '/' && b[j-2] == ':' {
			break
		}
		if c == ':' {
			colon = j
		}
	}
	if j <= 2 || at-j >= most {
		return 0, at
	}
	if colon < 0 || colon == at-1 || class[b[j-3]]&alnum == 0 || b[colon+1] == '$' || b[colon+1] == '{' || b[colon+1] == '<' {
		return 0, bare
	}
	for k := colon + 1; k < at; k++ {
		if b[k] == '/' && (k+1 == at || b[k+1] == '/') { // that was a path
			return 0, bare
		}
	}
	stars(b[colon+1 : at])
	return at + 1, bare
}

// keys are what a secret is called; what stands before is free, as in DB_PASSWORD.
var keys = [...]string{
	"password", "passwd", "passphrase", "pwd", "secret", "secretkey", "secret_key", "secretaccesskey", "secret_access_key", "clientsecret",
	"client_secret", "apikey", "api_key", "apitoken", "authtoken", "auth_token", "access_token", "accesskey", "access_key", "accountkey",
	"sharedaccesskey", "refresh_token", "private_key", "token", "api-key", "access-token", "secret-key", "client-secret",
}

// maskCredential looks at a = or : from the middle, for the name of a secret before it and the secret behind it, as in
// password=… and "api_key": "…". A value has at least eight characters, and where it stands alone looks like no word: it has
// letters and digits, or signs.
func maskCredential(b []byte, at int) int {
	j := at
	for j > 0 && at-j < 3 && (b[j-1] == ' ' || b[j-1] == '"' || b[j-1] == '\'') {
		j--
	}
	end := j
	for j > 0 && end-j < 40 && (class[b[j-1]]&alnum != 0 || b[j-1] == '_' || b[j-1] == '-') {
		j--
	}
	name, known := b[j:end], false
	if len(name) < 3 {
		return 0
	}
	switch name[len(name)-1] | 0x20 { // what keys end with: most words end here
	case 'd', 'e', 't', 'y', 'n':
	default:
		return 0
	}
	for _, k := range keys {
		if n := len(name) - len(k); n >= 0 && hasFold(name[n:], k) && (n == 0 || class[name[n-1]]&isLetter == 0 || name[n-1] >= 'a' && name[n] < 'a') {
			known = true
			break
		}
	}
	if !known {
		return 0
	}
	i := at + 1
	for i < len(b) && i-at < 4 && (b[i] == ' ' || b[i] == '=' || b[i] == '>') {
		i++
	}
	if i == len(b) {
		return 0
	}
	quote := b[i]
	if quote == '"' || quote == '\'' {
		i++
	} else {
		quote = 0
	}
	// What settles it is asked first: a value that goes on to the end and then is none would be read again for each name within.
	start, kinds := i, byte(0)
	if len(b)-i < 8 || b[i] == '$' || b[i] == '{' || b[i] == '<' || b[i] == '*' || b[i] == '%' || b[i] == '/' { // a reference, a file
		return 0
	}
	for i < len(b) {
		c := b[i]
		if c == quote && quote != 0 || quote == 0 && (c <= ' ' || c == ',' || c == ';' || c == '&' || c == '"' || c == '\'' || c == '}' || c == ')') || c == '\n' {
			break
		}
		switch {
		case class[c]&isDigit != 0:
			kinds |= 1
		case class[c]&isLetter != 0:
			kinds |= 2
		case c == ' ', c == '(' && i > start: // a sentence, a call
			return 0
		case c != '.' && c != '-' && c != '_':
			kinds |= 4
		}
		i++
	}
	v := b[start:i]
	if len(v) < 8 || kinds&(kinds-1) == 0 {
		return 0
	}
	stars(v)
	return i
}
