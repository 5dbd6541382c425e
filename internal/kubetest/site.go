package kubetest

// Site is what the objects of one site say, under the names that sites use.
type Site struct {
	S3Secret             string // name of the secret with the keys below
	AccessKey, SecretKey string
	Suffix               string // of the site's DNS names
	HarborURL            string // no object when empty
	Password             string // of Harbor's administrator
	CA                   string // PEM; no key when empty
}

// SetSite stores the four objects of a site.
func (s *Server) SetSite(site Site) {
	s.SetSecret("object-storage-access-keys", site.S3Secret, map[string]string{
		"access-key-id": site.AccessKey, "secret-access-key": site.SecretKey,
	})
	s.SetConfigMap("gpc-system", "dnssuffix", map[string]string{"dnsSuffix": site.Suffix})
	if site.HarborURL != "" {
		s.SetHarborCluster("harbor-system", "harbor", site.HarborURL)
	}
	admin := map[string]string{"secret": site.Password}
	if site.CA != "" {
		admin["ca.crt"] = site.CA
	}
	s.SetSecret("harbor-system", "harbor-admin", admin)
}

// AllowSite gives user the least rights that reading the objects of
// [Server.SetSite] takes.
func (s *Server) AllowSite(user, s3Secret string) {
	for _, r := range []Rule{
		{Resource: "secrets", Namespace: "object-storage-access-keys", Name: s3Secret},
		{Resource: "configmaps", Namespace: "gpc-system", Name: "dnssuffix"},
		{Resource: harborPlural, Group: harborGroup, Namespace: "harbor-system", Name: "harbor"},
		{Resource: "secrets", Namespace: "harbor-system", Name: "harbor-admin"},
	} {
		r.User = user
		s.Allow(r)
	}
}
