package postgres

import (
	"encoding/binary"

	"github.com/weir-gateway/weir/core"
)

var _ core.Transactions = (*Protocol)(nil)

// InTransaction finds the last ReadyForQuery among the messages of a record, which says whether a transaction is open.
func (*Protocol) InTransaction(r *core.Record) (open, known bool) {
	if r.Direction == core.FromClient {
		return false, false
	}
	for b := r.Wire; len(b) >= headerSize; {
		size := int64(binary.BigEndian.Uint32(b[1:])) + 1
		if size < headerSize || size > int64(len(b)) {
			return open, known
		}
		if b[0] == 'Z' && size == headerSize+1 {
			open, known = b[headerSize] != 'I', true
		}
		b = b[size:]
	}
	return open, known
}
