package gateway

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// The OpenAPI 3.1 document of the admin API, made of the table of routes and of the Go types that they read and write.

// object is a JSON object; encoding/json sorts its keys, so that the document does not depend on chance.
type object = map[string]any

// OpenAPI is the document.
func OpenAPI() []byte {
	schemas := object{}
	paths := object{}
	for _, r := range (&api{g: &Gateway{}}).routes() {
		at, _ := paths[r.path].(object)
		if at == nil {
			at = object{}
			paths[r.path] = at
		}
		at[strings.ToLower(r.method)] = r.operation(schemas)
	}
	schemaOf(reflect.TypeFor[Refused](), schemas)
	b, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Weir: admin API", "version": "1",
			"description": "Health, metrics, and what can be asked of a running gateway. It listens on loopback only. " +
				"A caller shows the token that clients sign in with, or one made with the gateway's own key, which is what the commands on its machine do. " +
				"`x-weir-action` is what the policy package weir.admin is asked about; without such a policy an act is for the key's holders, and approvals are for those whom the rules name.",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers": []object{{"url": "http://127.0.0.1:8480"}},
		"paths":   paths,
		"components": object{
			"schemas":         schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
			"responses": object{"refused": object{
				"description": "It was not done: the text says why", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Refused"}}},
			}},
		},
	}, "", "  ")
	if err != nil { // maps and strings only
		panic(err)
	}
	return append(b, '\n')
}

func (*api) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(OpenAPI())
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

// operation describes a route.
func (r *route) operation(schemas object) object {
	op := object{"summary": r.summary, "operationId": r.operationID()}
	if r.raw != nil {
		content := object{"schema": object{"type": "string"}}
		if strings.HasSuffix(r.media, "json") {
			content = object{"schema": object{"type": "object"}}
		}
		answers := object{"200": object{"description": "It is", "content": object{r.media: content}}}
		if r.path == "/readyz" {
			answers["503"] = object{"description": "It is not, a reason a line", "content": object{r.media: content}}
		}
		op["responses"], op["tags"] = answers, []string{"gateway"}
		return op
	}
	op["tags"] = []string{strings.Split(strings.TrimPrefix(r.path, "/api/v1/"), "/")[0]}
	op["security"] = []object{{"token": []string{}}}
	if r.open {
		op["security"] = []object{{"token": []string{}}, {}}
		op["description"] = "Where there is no policy for the admin address, it takes no token."
	}
	if r.action != "" {
		op["x-weir-action"], op["x-weir-changes"] = r.action, r.changes
	}
	var parameters []object
	for _, m := range pathParameter.FindAllStringSubmatch(r.path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.in != nil {
		in := reflect.TypeOf(r.in()).Elem()
		schema := fieldsOf(in, schemas)
		delete(schema, "required") // what is missing is empty
		schema["additionalProperties"] = false
		op["requestBody"] = object{"content": object{"application/json": object{"schema": schema}}}
	}
	answers := object{"200": object{"description": "Done", "content": object{"application/json": object{"schema": schemaOf(reflect.TypeOf(r.out), schemas)}}}}
	for _, code := range []string{"400", "401", "403", "404", "409", "413", "429", "503"} {
		answers[code] = object{"$ref": "#/components/responses/refused"}
	}
	op["responses"] = answers
	return op
}

// operationID is the action, which is not always one address's alone, or what the path says.
func (r *route) operationID() string {
	id := strings.ToLower(r.method)
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(r.path, "/api/v1"), func(c rune) bool { return c == '/' || c == '.' || c == '-' || c == '{' || c == '}' }) {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

// schemaOf describes the JSON of a Go type. A named struct is described once, among schemas.
func schemaOf(t reflect.Type, schemas object) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage](), t.Kind() == reflect.Interface:
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case reflect.Struct:
		name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if schemas[name] == nil {
			schemas[name] = object{} // it may hold itself
			schemas[name] = fieldsOf(t, schemas)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	panic("gateway: the admin API has no schema for " + t.String())
}

// fieldsOf describes a struct's fields.
func fieldsOf(t reflect.Type, schemas object) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		schema := schemaOf(f.Type, schemas)
		if strings.Contains(options, "omit") {
			properties[name] = schema
			continue
		}
		if k := f.Type.Kind(); k == reflect.Slice && f.Type != reflect.TypeFor[json.RawMessage]() { // none at all is null
			schema["type"] = []string{"array", "null"}
		}
		properties[name], required = schema, append(required, name)
	}
	return object{"type": "object", "properties": properties, "required": required}
}

// example is a body that a route reads, for those who sent another.
func example(r *route) string {
	t := reflect.TypeOf(r.in()).Elem()
	var fields []string
	for i := range min(t.NumField(), 3) {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		value := `"…"`
		if t.Field(i).Type.Kind() == reflect.Slice {
			value = `["…"]`
		}
		fields = append(fields, `"`+name+`": `+value)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}
