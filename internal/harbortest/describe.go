package harbortest

import (
	_ "embed"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

//go:embed testdata/swagger.yaml
var descriptionText []byte

// parameter of an operation, or a reference to one.
type parameter struct {
	Ref      string `json:"$ref"`
	Name     string `json:"name"`
	In       string `json:"in"`
	Required bool   `json:"required"`
}

type operation struct {
	Parameters []parameter `json:"parameters"`
}

// description is Harbor's description of its API, as far as it is needed.
type description struct {
	BasePath   string                          `json:"basePath"`
	Paths      map[string]map[string]operation `json:"paths"`
	Parameters map[string]parameter            `json:"parameters"`
}

var loadDescription = sync.OnceValues(func() (*description, error) {
	d := &description{}
	err := yaml.Unmarshal(descriptionText, d)
	return d, err
})

// find returns the operation for an escaped path below the base path.
func (d *description) find(method, path string) (operation, bool) {
	got := strings.Split(path, "/")
	for pattern, operations := range d.Paths {
		want := strings.Split(pattern, "/")
		same := slices.EqualFunc(want, got, func(w, g string) bool {
			return w == g || strings.HasPrefix(w, "{") && g != ""
		})
		// A fixed path goes before one with a variable at its place.
		if same && (!strings.Contains(pattern, "{") || d.Paths[path] == nil) {
			op, ok := operations[strings.ToLower(method)]
			return op, ok
		}
	}
	return operation{}, false
}

func (d *description) parameters(op operation) []parameter {
	all := slices.Clone(op.Parameters)
	for i, p := range all {
		if p.Ref != "" {
			all[i] = d.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
		}
	}
	return all
}

// Described returns an error unless Harbor's API description has the method
// and path of r with each of its query parameters and X- headers, and r has
// all parameters that are required there. Requests to the registry or the
// token service are none of its business.
func Described(r *http.Request) error {
	d, err := loadDescription()
	if err != nil {
		return err
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), d.BasePath)
	if !ok {
		return nil
	}
	op, ok := d.find(r.Method, path)
	if !ok {
		return fmt.Errorf("%s %s is not in the description", r.Method, path)
	}
	query := r.URL.Query()
	known := map[string]bool{}
	for _, p := range d.parameters(op) {
		known[p.In+":"+p.Name] = true
		if p.Required && p.In == "query" && !query.Has(p.Name) {
			return fmt.Errorf("%s %s lacks the parameter %s", r.Method, path, p.Name)
		}
	}
	for name := range query {
		if !known["query:"+name] {
			return fmt.Errorf("%s %s has no parameter %s", r.Method, path, name)
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-") && !known["header:"+name] {
			return fmt.Errorf("%s %s has no header %s", r.Method, path, name)
		}
	}
	return nil
}

// CheckDescribed passes requests on to next, and fails the test for each that
// is not [Described].
func CheckDescribed(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := Described(r); err != nil {
			t.Errorf("a request against the API description: %v", err)
		}
		next.ServeHTTP(w, r)
	})
}
