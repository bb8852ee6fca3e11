package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// schemaName is what a manifest's schema is called: nothing is ever fetched by it.
const schemaName = "weir:config_schema"

// nothing loads what a schema refers to outside of itself: a manifest must not make the gateway read files or URLs.
type nothing struct{}

// Load implements jsonschema.URLLoader.
func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s: a schema stands on its own", url)
}

// compileSchema makes the manifest's config_schema usable. Without a dialect it is of 2020-12.
func (m *Manifest) compileSchema() error {
	if len(m.Schema) == 0 {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Schema))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(nothing{})
	if err := c.AddResource(schemaName, doc); err != nil {
		return err
	}
	m.schema, err = c.Compile(schemaName)
	return err
}

// ConfigError is a configuration that a plugin's schema does not allow.
type ConfigError struct{ problems []string }

// Error tells every problem. No value is in it: a value may be a secret.
func (e *ConfigError) Error() string {
	return "it refuses its config: " + strings.Join(e.problems, "; ")
}

// configText is the configuration as the guest gets it, if its schema allows it.
func (m *Manifest) configText(config map[string]any) ([]byte, error) {
	if config == nil {
		config = map[string]any{}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if m.schema == nil {
		return raw, nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var invalid *jsonschema.ValidationError
	switch err := m.schema.Validate(doc); {
	case err == nil:
		return raw, nil
	case errors.As(err, &invalid):
		e := &ConfigError{}
		e.collect(invalid)
		return nil, e
	default:
		return nil, errors.New("it refuses its config: its schema cannot judge it")
	}
}

const maxProblems = 8

var english = message.NewPrinter(language.English)

// collect gathers the leaves of a validation's errors, where they are, and what is asked for there.
func (e *ConfigError) collect(v *jsonschema.ValidationError) {
	if len(v.Causes) > 0 {
		for _, c := range v.Causes {
			e.collect(c)
		}
		return
	}
	if len(e.problems) == maxProblems {
		return
	}
	var at strings.Builder
	at.WriteString("config")
	for _, part := range v.InstanceLocation {
		if strings.Trim(part, "0123456789") == "" {
			at.WriteString("[" + part + "]")
		} else {
			at.WriteString("." + part)
		}
	}
	e.problems = append(e.problems, at.String()+": "+wants(v))
}

// wants says what a schema asks for, in the library's words where they hold no value.
func wants(v *jsonschema.ValidationError) string {
	switch k := v.ErrorKind.(type) {
	case *kind.Type, *kind.Required, *kind.AdditionalProperties, *kind.MinItems, *kind.MaxItems, *kind.MinProperties, *kind.MaxProperties,
		*kind.MinLength, *kind.MaxLength, *kind.UniqueItems, *kind.DependentRequired, *kind.OneOf, *kind.AnyOf, *kind.Not, *kind.FalseSchema:
		return clean(v.ErrorKind.LocalizedString(english), 256)
	case *kind.Enum:
		return "must be one of " + texted(k.Want)
	case *kind.Const:
		return "must be " + texted(k.Want)
	case *kind.Pattern:
		return "must match " + clean(k.Want, 256)
	case *kind.Format:
		return "must be a " + clean(k.Want, 64)
	case *kind.Minimum:
		return "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + k.Want.RatString()
	}
	return "does not fit " + strings.Join(v.ErrorKind.KeywordPath(), "/")
}

func texted(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "what the schema says"
	}
	return clean(string(b), 256)
}
