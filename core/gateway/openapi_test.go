package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-gateway/weir/core"
)

// TestOpenAPIFile: the page beside the code is what the gateway serves. UPDATE=1 writes it.
func TestOpenAPIFile(t *testing.T) {
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("openapi.json", OpenAPI(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile("openapi.json"); err != nil || !bytes.Equal(have, OpenAPI()) {
		t.Errorf("openapi.json is not up to date: run make docs (%v)", err)
	}
}

// office is everything that the admin API asks, in memory.
type office struct {
	held   []Held
	issued []Token
	fails  error
}

func (o *office) Held(context.Context) ([]Held, error) { return append([]Held{}, o.held...), o.fails }

func (o *office) Hold(_ context.Context, by, why string, sessions ...string) error {
	for _, s := range sessions {
		o.held = append(o.held, Held{s, time.Now(), by, why})
	}
	return o.fails
}

func (o *office) Release(_ context.Context, _, _ string, sessions ...string) error {
	n := len(o.held)
	o.held = slices.DeleteFunc(o.held, func(h Held) bool { return slices.Contains(sessions, h.Session) })
	if len(o.held) == n {
		return core.Refusal("it is not held")
	}
	return o.fails
}

// secretToken is shaped as tokens are, and is to be found nowhere.
const secretToken = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"

func (o *office) Issue(_ context.Context, g Grant) (NewToken, error) {
	if g.Kind == "robot" {
		return NewToken{}, core.Refusal("the kind is not human, service or agent")
	}
	id := fmt.Sprint("id-", len(o.issued)+1)
	o.issued = append(o.issued, Token{ID: id, Subject: g.Subject, Kind: "service", Groups: g.Groups, Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	return NewToken{Token: secretToken, ID: id, Subject: g.Subject, Expires: time.Now().Add(time.Hour)}, o.fails
}

func (o *office) Issued(context.Context) ([]Token, error) {
	return append([]Token{}, o.issued...), o.fails
}

// everyone recognises operators, clients, and makes tokens for runs.
type everyone struct{ operators }

func (everyone) Run(who core.Identity, _ string, _ []string, _ time.Duration) (string, time.Time, error) {
	return who.Subject + "-run", time.Now().Add(time.Minute), nil
}

// staffed is a rig whose admin API has all that it can have.
func staffed(t *testing.T, change func(*Config, *Settings)) (*rig, *office) {
	t.Helper()
	o := &office{}
	return start(t, func(c *Config, s *Settings) {
		c.Holds, c.Lock, c.Version = o, time.Hour, "test"
		c.Revocations = &revoked{changed: make(chan struct{}, 100)}
		c.Approvals = &queue{request: core.Approval{ID: "id-1", State: core.ApprovalWaiting, Identity: "eve", Text: "DELETE FROM secrets", Holds: []core.HeldBy{{Rule: "r", Approvers: []string{"dba"}}}}}
		c.Reread = func(context.Context) error { return nil }
		s.Tokens, s.Verifier = o, everyone{}
		s.Targets[0].Labels = map[string]string{"tier": "1"}
		s.Targets[0].Notes = []Note{{Step: "access", Does: "mask", What: "email"}}
		if change != nil {
			change(c, s)
		}
	}), o
}

// ask asks the admin address.
func (r *rig) ask(method, path, token, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.AdminAddr().String()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

type operation struct {
	Security  []map[string]any
	Action    string `json:"x-weir-action"`
	Responses map[string]struct {
		Content map[string]struct{ Schema map[string]any }
	}
	RequestBody struct {
		Content map[string]struct{ Schema map[string]any }
	}
}

// TestOpenAPI: every route is in the document and the other way round; and what a gateway answers is as the document says,
// with nothing beside it.
func TestOpenAPI(t *testing.T) {
	r, _ := staffed(t, nil)
	code, text := r.ask("GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]operation
		Components map[string]any
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || code != 200 || doc.OpenAPI != "3.1.0" {
		t.Fatal(code, err)
	}
	routes := (&api{g: r.Gateway}).routes()
	described := 0
	ids := map[string]bool{}
	for _, ops := range doc.Paths {
		described += len(ops)
	}
	for _, x := range routes {
		op, ok := doc.Paths[x.path][strings.ToLower(x.method)]
		if !ok || op.Action != x.action || x.summary == "" || ids[x.operationID()] {
			t.Errorf("%s %s: described %v, as %q, id %s", x.method, x.path, ok, op.Action, x.operationID())
		}
		ids[x.operationID()] = true
		if needs := len(op.Security) == 1; needs != (x.raw == nil && !x.open) {
			t.Errorf("%s %s: security %v", x.method, x.path, op.Security)
		}
	}
	if described != len(routes) {
		t.Errorf("%d operations are described, and there are %d routes", described, len(routes))
	}
	// Nothing is registered past the table.
	for _, file := range []string{"admin.go", "api.go", "control.go", "approvals.go", "revocations.go", "targets.go", "routes.go", "act.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(regexp.MustCompile(`\.Handle(Func)?\(`).FindAll(b, -1)); n > 0 && file != "admin.go" || n > 1 {
			t.Errorf("%s registers %d routes", file, n)
		}
	}
	k := r.dial()
	k.want("one good", "ok")
	id := r.Sessions()[0].ID
	bodies := map[string]string{
		"POST /api/v1/sessions/{id}/end": `{"reason": "it runs in circles"}`, "POST /api/v1/tokens": `{"subject": "nightly", "groups": ["dba"], "ttl": "1h"}`,
		"POST /api/v1/revocations/revoke": `{"subject": "ada", "reason": "gone"}`, "POST /api/v1/revocations/restore": `{"subject": "ada"}`,
		"POST /api/v1/holds/hold": `{"sessions": ["s1"], "reason": "case 4711"}`, "POST /api/v1/holds/release": `{"sessions": ["s1"]}`,
		"POST /api/v1/locks/release": `{"source": "203.0.113.7"}`, "POST /api/v1/runs": `{"targets": ["one"]}`,
	}
	for range freeFailures {
		r.lockout.failed("203.0.113.7")
	}
	order := slices.Clone(routes)
	slices.SortStableFunc(order, func(a, b route) int { // the session and the hold end last, and lists follow what is made
		last := func(x route) int {
			switch {
			case strings.HasSuffix(x.path, "/end"), strings.HasSuffix(x.path, "/restore"), strings.HasSuffix(x.path, "/release"):
				return 2
			case x.method == "GET":
				return 1
			}
			return 0
		}
		return last(a) - last(b)
	})
	for _, x := range order {
		name := x.method + " " + x.path
		op := doc.Paths[x.path][strings.ToLower(x.method)]
		path := strings.ReplaceAll(x.path, "{id}", map[bool]string{true: id, false: "id-1"}[strings.Contains(x.path, "/sessions/")])
		token := "key"
		if x.own || strings.HasPrefix(x.action, "approvals.") {
			token = "good-dba"
		}
		if body := bodies[name]; body != "" {
			if err := validate(op.RequestBody.Content["application/json"].Schema, doc.Components, []byte(body)); err != nil {
				t.Errorf("%s: the example is not as described: %v", name, err)
			}
		}
		code, text := r.ask(x.method, path, token, bodies[name])
		if code != 200 {
			t.Errorf("%s: %d %s", name, code, text)
			continue
		}
		answer, ok := op.Responses["200"].Content["application/json"]
		if !ok || x.raw != nil {
			continue
		}
		if err := validate(answer.Schema, doc.Components, []byte(text)); err != nil {
			t.Errorf("%s: the answer %s is not as described: %v", name, text, err)
		}
		if x.method == "GET" && (text == "[]\n" || text == "null\n") {
			t.Errorf("%s: nothing was there to look at: %s", name, text)
		}
		// The control: an answer with one field more, and one with a field less, would be found.
		var object map[string]any
		if json.Unmarshal([]byte(text), &object) == nil {
			for key := range object {
				delete(object, key)
				break
			}
			object["more"] = 1
			b, _ := json.Marshal(object)
			if validate(answer.Schema, doc.Components, b) == nil {
				t.Errorf("%s: anything is valid", name)
			}
		}
	}
	code, text = r.ask("POST", "/api/v1/tokens", "nobody", `{}`)
	if err := validate(map[string]any{"$ref": "#/components/schemas/Refused"}, doc.Components, []byte(text)); code != 401 || err != nil {
		t.Errorf("a refusal: %d %s %v", code, text, err)
	}
}

// validate checks a value against a schema of the document, in which nothing may stand that is not described.
func validate(schema, components map[string]any, value []byte) error {
	whole := closed(map[string]any{"schema": schema, "components": components}).(map[string]any)
	whole["$ref"] = "#/schema"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///doc.json", whole); err != nil {
		return err
	}
	s, err := c.Compile("mem:///doc.json")
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func closed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = closed(x)
		}
		if _, ok := out["properties"]; ok && out["type"] == "object" {
			out["additionalProperties"] = false
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = closed(x)
		}
		return out
	}
	return v
}
