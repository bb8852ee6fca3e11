package postgres

import (
	"context"

	"github.com/weir-gateway/weir/core"
)

var _ core.Parser = (*Protocol)(nil)

// Parse implements core.Parser. A text of several statements is one command for each.
func (p *Protocol) Parse(ctx context.Context, text string) ([]*core.Command, error) {
	script := p.reader.Read(ctx, text)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(script.Statements) < 2 {
		return []*core.Command{script.Command}, nil
	}
	var list []*core.Command
	for i := range script.Statements {
		list = append(list, script.Statements[i].Command)
	}
	return list, nil
}
