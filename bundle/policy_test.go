package bundle

import (
	"errors"
	"os"
	"testing"
	"time"

	"ferry/verify"
)

// A policy has its say in the name, the age and all targets of a bundle, also
// when one volume is all there is (T26, T29).
func TestPolicy(t *testing.T) {
	signer := testKeys()["one"]
	store := newMemory()
	s := small()
	s.manifest.Base = &Base{Digest: verify.DigestOf(nil), Name: "base", Version: "1", Blobs: []BaseBlob{
		{Digest: verify.DigestOf([]byte("in the base")), Size: 11, Target: "secret/app"}}}
	s.write(t, store, 0)
	all := []string{"library", "team/app", "secret"}
	for _, tt := range []struct {
		name           string
		bundle, maxAge string
		targets        []string
		want           error
	}{
		{"all of it", "demo", "12h", all, nil},
		{"pattern", "d*", "", []string{"*"}, nil},
		{"another name", "demos", "", all, verify.ErrName},
		{"an image elsewhere", "*", "", []string{"library", "secret"}, verify.ErrTarget},
		{"a blob of the base from elsewhere", "*", "", []string{"library", "team"}, verify.ErrTarget},
		{"old", "*", "11h59m", all, verify.ErrTooOld},
	} {
		d := verify.Draft{Version: 1, Keys: []verify.DraftKey{{Name: "one", PEM: publicKey(t, "one")}}, Root: verify.DraftQuorum{Keys: []string{"one"}, Threshold: 1},
			Roles: []verify.DraftRole{{Name: "role", DraftQuorum: verify.DraftQuorum{Keys: []string{"one"}, Threshold: 1}, Bundles: []string{tt.bundle}, Targets: tt.targets, MaxAge: tt.maxAge}}}
		raw, err := d.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := signer.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		policy, err := verify.OpenPolicy(t.Context(), raw, [][]byte{sig}, nil, testTime)
		if err != nil {
			t.Fatal(err)
		}
		for _, volume := range []string{"", VolumeName(0)} {
			err := readAll(store, volume, ReadOptions{Policy: policy, Now: testTime})
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %q: %v, want %v", tt.name, volume, err, tt.want)
			}
		}
	}
	if _, err := OpenReader(t.Context(), store, "", ReadOptions{Now: time.Now()}); !errors.Is(err, verify.ErrNoKey) {
		t.Errorf("without a policy: %v", err)
	}
}

func publicKey(t *testing.T, name string) string {
	t.Helper()
	pem, err := os.ReadFile("../testdata/keys/" + name + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}
