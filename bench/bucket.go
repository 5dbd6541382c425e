package main

import (
	"context"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// getVolumes returns the command that copies all volumes of the bundle in the
// bucket into the folder out, each with one GET of a signed URL.
func (l *lab) getVolumes(out string) command {
	c := command{l.program, "get"}
	for _, key := range l.keysBelow(l.inputs["bucket"]) {
		if strings.HasSuffix(key, ".tar") {
			c = append(c, l.signedURL(key), filepath.Join(out, filepath.Base(key)))
		}
	}
	return c
}

// keysBelow returns the keys of the bucket below prefix, as they lie in the
// server's folder.
func (l *lab) keysBelow(prefix string) []string {
	var keys []string
	filepath.WalkDir(filepath.Join(l.s3.folder, prefix), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if key, err := filepath.Rel(l.s3.folder, name); err == nil {
			keys = append(keys, filepath.ToSlash(key))
		}
		return nil
	})
	return keys
}

// signedURL returns a URL that reads an object for an hour.
func (l *lab) signedURL(key string) string {
	u := url.URL{Scheme: "http", Host: l.s3.host, Path: "/" + s3Bucket + "/" + key, RawQuery: "X-Amz-Expires=3600"}
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	credentials := aws.Credentials{AccessKeyID: s3Key, SecretAccessKey: s3Secret}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	signed, _, err := signer.PresignHTTP(context.Background(), credentials, req, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now())
	if err != nil {
		return u.String() // which the server refuses
	}
	return signed
}
