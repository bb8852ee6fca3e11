package postgres

import (
	"strings"

	"github.com/jackc/pgproto3/v2"

	"github.com/weir-gateway/weir/core"
)

// SQLSTATE codes that Weir uses itself (PostgreSQL manual, appendix A).
const (
	codeProtocolViolation     = "08P01"
	codeConnectionFailure     = "08006"
	codeCannotConnect         = "08001"
	codeInvalidParameter      = "22023"
	codeFeatureNotSupported   = "0A000"
	codeInvalidAuthorization  = "28000"
	codeInvalidPassword       = "28P01"
	codeUndefinedDatabase     = "3D000"
	codeInsufficientPrivilege = "42501"
	codeUndefinedColumn       = "42703"
	codeUndefinedObject       = "42704"
	codeTooManyConnections    = "53300"
	codeProgramLimitExceeded  = "54000"
	codeQueryCanceled         = "57014"
	codeAdminShutdown         = "57P01"
	codeCannotConnectNow      = "57P03"
	codeIdleTimeout           = "57P05"
	codeIOError               = "58030"
)

// appendError appends an ErrorResponse. severity is ERROR or FATAL.
func appendError(dst []byte, severity, code, message, detail, hint string) []byte {
	e := pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: code,
		Message: clean(message), Detail: clean(detail), Hint: clean(hint),
	}
	out, err := e.Encode(dst)
	if err != nil { // only a message of over a gigabyte
		return dst
	}
	return out
}

// appendRefusal appends the ErrorResponse of a refusal: 42501, the rule in DETAIL, what to do instead in HINT.
func appendRefusal(dst []byte, severity string, d *core.Denial) []byte {
	message := "refused by Weir"
	if d.Reason != "" {
		message += ": " + d.Reason
	}
	code := codeInsufficientPrivilege
	switch d.Rule {
	case "journal-lost":
		code = codeIOError
	case core.RuleCancelled:
		code = codeQueryCanceled
	case "limit-rows", "limit-bytes", "limit-time":
		code = codeProgramLimitExceeded
	case "limit-sessions", "limit-sessions-identity", "limit-sessions-run":
		code = codeTooManyConnections
	}
	return appendError(dst, severity, code, message, "rule "+d.Rule, d.Hint)
}

// clean removes what a NUL-terminated field cannot hold.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "") }

// fields reads the fields of an ErrorResponse or NoticeResponse body that has passed checkFields.
func fields(b []byte, f func(typ byte, value []byte)) {
	c := body{b: b}
	for {
		t := c.u8()
		if t == 0 || c.err != nil {
			return
		}
		f(t, c.str())
	}
}

// rewriteFields re-encodes an error or notice with the texts that steps have changed. Order and the other fields stay.
func rewriteFields(dst []byte, typ byte, b []byte, texts []core.Text) []byte {
	dst, at := beginFrame(dst, typ)
	i := 0
	fields(b, func(t byte, value []byte) {
		dst = append(dst, t)
		if i < len(texts) && texts[i].Field == string(t) {
			dst = append(dst, clean(texts[i].Value)...)
			i++
		} else {
			dst = append(dst, value...)
		}
		dst = append(dst, 0)
	})
	dst = append(dst, 0)
	return endFrame(dst, at)
}

// valueFields are the fields of an error or notice that may carry a value of the target's data.
const valueFields = "MDHWq"

// resultOf reads an error or notice into a Result.
func resultOf(status string, b []byte) *core.Result {
	r := &core.Result{Status: status}
	fields(b, func(t byte, value []byte) {
		switch t {
		case 'C':
			r.Code = string(value)
		case 'M':
			r.Message = string(value)
		}
		if strings.IndexByte(valueFields, t) >= 0 {
			r.Texts = append(r.Texts, core.Text{Field: string(t), Value: string(value)})
		}
	})
	return r
}
