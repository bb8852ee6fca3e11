package kubernetes_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Data       map[string]string
	Spec       struct {
		Template struct{ Spec pod }
	}
	Config map[string]any // of Helm values
}

type pod struct {
	AutomountServiceAccountToken *bool `yaml:"automountServiceAccountToken"`
	SecurityContext              struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
	Volumes        []struct{ Name string }
}

type container struct {
	Name, Image     string
	Args            []string
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

func objects(t *testing.T) (all []object) {
	t.Helper()
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
			var o object
			if err := dec.Decode(&o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if strings.HasSuffix(file, "-values.yaml") {
				continue
			}
			if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" || o.Kind != "Namespace" && o.Metadata.Namespace != "weir" {
				t.Errorf("%s: %+v is not whole", file, o)
			}
			all = append(all, o)
		}
	}
	return all
}

// TestManifests: every file is YAML, every pod is what the namespace's pod security standard asks for, and what a
// container mounts is there.
func TestManifests(t *testing.T) {
	pods := 0
	for _, o := range objects(t) {
		if o.Kind != "StatefulSet" && o.Kind != "Deployment" {
			continue
		}
		pods++
		p := o.Spec.Template.Spec
		if !p.SecurityContext.RunAsNonRoot || p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
			t.Errorf("%s: the pod is not restricted", o.Metadata.Name)
		}
		volumes := map[string]bool{"data": true} // of the claim's template, or below
		for _, v := range p.Volumes {
			volumes[v.Name] = true
		}
		for _, c := range append(p.InitContainers, p.Containers...) {
			s := c.SecurityContext
			if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
				t.Errorf("%s: container %s is not restricted", o.Metadata.Name, c.Name)
			}
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: container %s mounts %s, which is not there", o.Metadata.Name, c.Name, m.Name)
				}
			}
		}
	}
	if pods != 2 {
		t.Errorf("%d workloads", pods)
	}
}

// TestConfiguration: weir check finds the configuration in the ConfigMap good. Its folders are moved to where the test may
// write.
func TestConfiguration(t *testing.T) {
	weir, err := postgrestest.Binary(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, o := range objects(t) {
		if o.Kind != "ConfigMap" {
			continue
		}
		for name, text := range o.Data {
			to := filepath.Join(dir, name)
			if strings.HasSuffix(name, ".rego") {
				to = filepath.Join(dir, "policies", name)
			}
			text = strings.NewReplacer("/var/lib/weir", filepath.Join(dir, "data"), "/etc/weir-policies", filepath.Join(dir, "policies"),
				"      tls: {cert: /etc/weir-tls/tls.crt, key: /etc/weir-tls/tls.key}\n", "", "  tls: {cert: /etc/weir-tls/tls.crt, key: /etc/weir-tls/tls.key}\n", "").Replace(text)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func() (string, error) {
		c := exec.Command(weir, "check", "-c", filepath.Join(dir, "weir.yaml"))
		c.Env = append(os.Environ(), "ORDERS_PASSWORD=x")
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil {
		t.Errorf("weir check: %v\n%s", err, out)
	}
	// The control: it would say so.
	b, err := os.ReadFile(filepath.Join(dir, "weir.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "weir.yaml"), bytes.Replace(b, []byte("replicas: 3"), []byte("replicas: 9"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := check(); err == nil {
		t.Error("nine replicas are good as well")
	}
}
