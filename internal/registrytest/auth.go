package registrytest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Basic lets in those who are among users, passwords by name, by basic
// authentication.
func Basic(users map[string]string) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, ok := r.BasicAuth()
			if want, known := users[user]; !ok || !known || want != password {
				w.Header().Set("Www-Authenticate", `Basic realm="test"`)
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized: unauthorized")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, Errors(code, message))
}

// Tokens is a token service, and the guard before the registry that it
// serves. Its fields are set before it is used.
type Tokens struct {
	// Users are the passwords by name.
	Users map[string]string
	// Identity are the users by refresh token.
	Identity map[string]string
	// Allow says what a user, or nobody when it is empty, may do with a
	// repository; "pull" or "push". Nil lets users do all and others
	// nothing.
	Allow func(user, repository, action string) bool
	// Strict refuses a wrong password. Harbor is not strict: it gives the
	// token of nobody.
	Strict bool
	// Life is how long a token is said to hold. Zero means half an hour.
	Life time.Duration
	// Realm is the address of the token service. Empty means
	// "/service/token" at the guarded registry's own host.
	Realm string

	mu     sync.Mutex
	issued map[string]grant
	count  int
	logins []string // what Authorization headers the service has seen
	seen   []string // and those that the registry has
}

type grant struct {
	user  string
	until time.Time
	// scopes maps a repository to its actions.
	scopes map[string][]string
}

// Count returns how many tokens were asked for.
func (t *Tokens) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// Seen returns the Authorization headers that the token service was sent, and
// those that the registry was, each once and sorted.
func (t *Tokens) Seen() (service, registry []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	uniq := func(s []string) []string {
		s = slices.Clone(s)
		slices.Sort(s)
		return slices.Compact(s)
	}
	return uniq(t.logins), uniq(t.seen)
}

// Revoke makes all tokens void.
func (t *Tokens) Revoke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.issued)
}

// ServeHTTP is the token service.
func (t *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if a := r.Header.Get("Authorization"); a != "" {
		t.logins = append(t.logins, a)
	}
	user, password, _ := r.BasicAuth()
	known := user != "" && t.Users[user] == password
	scopes := r.URL.Query()["scope"]
	switch {
	case r.Method == http.MethodPost && t.Identity != nil:
		user = t.Identity[r.PostFormValue("refresh_token")]
		known = user != "" && r.PostFormValue("grant_type") == "refresh_token"
		scopes = strings.Fields(r.PostFormValue("scope"))
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !known {
		if t.Strict && (user != "" || r.Method == http.MethodPost) {
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
			return
		}
		user = ""
	}
	g := grant{user: user, scopes: make(map[string][]string)}
	life := t.Life
	if life == 0 {
		life = 30 * time.Minute
	}
	g.until = time.Now().Add(life)
	for _, s := range scopes {
		part := strings.SplitN(s, ":", 3)
		if len(part) != 3 || part[0] != "repository" {
			continue
		}
		for _, action := range strings.Split(part[2], ",") {
			if t.allows(user, part[1], action) {
				g.scopes[part[1]] = append(g.scopes[part[1]], action)
			}
		}
	}
	token := rand.Text()
	if t.issued == nil {
		t.issued = make(map[string]grant)
	}
	t.issued[token] = g
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": life.Seconds()})
}

func (t *Tokens) allows(user, repository, action string) bool {
	if t.Allow == nil {
		return user != ""
	}
	return t.Allow(user, repository, action)
}

var repositoryPath = regexp.MustCompile(`^/v2/(.+)/(?:manifests|blobs|tags|referrers)/`)

// Guard is the fault of wanting a token: requests pass if theirs allows what
// they do.
func (t *Tokens) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.Realm == "" && r.URL.Path == "/service/token" {
			t.ServeHTTP(w, r)
			return
		}
		if t.passes(r) {
			next.ServeHTTP(w, r)
			return
		}
		realm := t.Realm
		if realm == "" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			realm = scheme + "://" + r.Host + "/service/token"
		}
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test"`, realm))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized: unauthorized")
	})
}

func (t *Tokens) passes(r *http.Request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	header := r.Header.Get("Authorization")
	if header != "" {
		t.seen = append(t.seen, header)
	}
	token, _ := strings.CutPrefix(header, "Bearer ")
	g, ok := t.issued[token]
	if !ok || time.Now().After(g.until) {
		return false
	}
	m := repositoryPath.FindStringSubmatch(r.URL.Path)
	if m == nil { // "/v2/" itself
		return g.user != ""
	}
	action := "pull"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		action = "push"
	}
	if from := r.URL.Query().Get("from"); from != "" && !slices.Contains(g.scopes[from], "pull") {
		return false
	}
	return slices.Contains(g.scopes[m[1]], action)
}

// Issue makes token hold for all of repositories, for a login that is a token
// itself.
func (t *Tokens) Issue(token string, repositories ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := grant{user: "token", until: time.Now().Add(time.Hour), scopes: make(map[string][]string)}
	for _, r := range repositories {
		g.scopes[r] = []string{"pull", "push"}
	}
	if t.issued == nil {
		t.issued = make(map[string]grant)
	}
	t.issued[token] = g
}
