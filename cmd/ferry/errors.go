package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"syscall"

	"ferry/bundle"
	"ferry/harbor"
	"ferry/internal/extract"
	"ferry/internal/kube"
	"ferry/internal/layout"
	"ferry/internal/oci"
	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/s3store"
	"ferry/verify"
)

// Exit codes; docs/cli.md has them for users.
const (
	exitError       = 1
	exitUsage       = 2
	exitUntrusted   = 3
	exitCorrupt     = 4
	exitDenied      = 5
	exitConflict    = 6
	exitNoSpace     = 7
	exitUnavailable = 8
	exitBaseMissing = 9
	exitInterrupted = 130
)

const exitCodesHelp = `Exit codes:
  0    done
  1    other error
  2    wrong usage
  3    not trusted: signature, policy, expiry
  4    corrupt or incomplete content
  5    login or right missing
  6    conflict: immutable tag, exists already
  7    no space or quota
  8    network or server unavailable: run again
  9    base of an incremental bundle missing
  130  interrupted: run again`

// exitCode returns the exit code for err, which is not nil.
func exitCode(ctx context.Context, err error) int {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var usage usageError
	var network *net.OpError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &usage) || is(layout.ErrUnknown, layout.ErrCompressed, harbor.ErrInvalidName, s3store.ErrMemory):
		return exitUsage
	case ctx.Err() != nil && is(context.Canceled):
		return exitInterrupted
	case is(verify.ErrUntrusted, verify.ErrPolicy):
		return exitUntrusted
	case is(transfer.ErrBaseMissing):
		return exitBaseMissing
	case is(bundle.ErrNoSpace, extract.ErrNoSpace, registry.ErrQuota, harbor.ErrQuota, syscall.ENOSPC):
		return exitNoSpace
	case is(registry.ErrUnauthorized, registry.ErrReadOnly, harbor.ErrUnauthorized, harbor.ErrForbidden, harbor.ErrReadOnly, harbor.ErrProxyCache,
		preflight.ErrNoProject, kube.ErrDenied, s3store.ErrDenied, verify.ErrPassword, errNoPassword, fs.ErrPermission):
		return exitDenied
	case is(transfer.ErrConflict, transfer.ErrReceipt, registry.ErrConflict, harbor.ErrExists, harbor.ErrImmutable, harbor.ErrAmbiguous, bundle.ErrExists,
		bundle.ErrBusy, layout.ErrExists, extract.ErrNotEmpty, extract.ErrDestination, syscall.EEXIST):
		return exitConflict
	case is(registry.ErrUnavailable, harbor.ErrUnavailable, kube.ErrUnavailable, s3store.ErrUnavailable, bundle.ErrChanged) || errors.As(err, &network) || errors.As(err, &lookup):
		return exitUnavailable
	case is(bundle.ErrCorrupt, bundle.ErrIncomplete, bundle.ErrInvalid, verify.ErrMismatch, oci.ErrInvalid, transfer.ErrLost,
		layout.ErrInvalid, extract.ErrUnsafe, extract.ErrInvalid, extract.ErrLimit, extract.ErrCollision):
		return exitCorrupt
	}
	return exitError
}

// hintFor returns what a user can do about err, or "".
func hintFor(err error, code int) string {
	var unknownCA x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var expired x509.CertificateInvalidError
	if hint := explainCluster(err); hint != "" {
		return hint
	}
	var tight *roomError
	var ofPolicy *policyError
	if errors.As(err, &ofPolicy) && ofPolicy.hint() != "" {
		return ofPolicy.hint()
	}
	var notThere *notThereError
	switch {
	case errors.As(err, &notThere):
		return notThere.hint
	case errors.As(err, &tight):
		return tight.hint()
	case errors.As(err, &unknownCA):
		return "trust the site's CA with --ca-file CA.pem, SSL_CERT_FILE or a certs.d, after comparing the fingerprint with the one that its owner tells; or, where nobody can be in between, skip the check for this one host with --insecure HOST"
	case errors.As(err, &wrongHost), errors.As(err, &expired):
		return "the server's certificate is for another name or time: see that the name and this machine's clock are right"
	case errors.Is(err, layout.ErrCompressed):
		return "decompress the archive first, such as with gunzip: nothing in it can be found without reading all of it"
	case errors.Is(err, s3store.ErrMemory):
		return "export in smaller volumes, with --volume-size, or give the parts more memory with --memory"
	case errors.Is(err, syscall.EMFILE):
		return "let the process open more files, such as with ulimit -n 1024, or do less at once with --jobs; each volume of a bundle that is read is one"
	case errors.Is(err, errNoPassword):
		return ""
	case errors.Is(err, verify.ErrNoKey):
		return "give the exporter's public key with --key cosign.pub, or a policy with --policy; there is no way to go on without one"
	case errors.Is(err, verify.ErrPolicy):
		return "docs/trust.md has what a policy says; ferry trust init writes one"
	case errors.Is(err, verify.ErrPolicyExpired), errors.Is(err, verify.ErrKeyExpired), errors.Is(err, verify.ErrKeyNotYetValid):
		return "see that this machine's clock is right; else get the next version of the policy from those who sign it, and try it with ferry trust check"
	case errors.Is(err, verify.ErrThreshold), errors.Is(err, verify.ErrSameKey):
		return "let another key sign as well, beside: bundles with cosign sign-blob, as docs/trust.md says, policies with ferry trust sign; a single .tar brings one signature only"
	case errors.Is(err, verify.ErrName), errors.Is(err, verify.ErrTarget):
		return "ferry trust show tells what the policy allows; nothing was written"
	case isOfImage(err):
		return "ferry trust show tells whose signatures the policy wants; have the image signed with cosign where it comes from; nothing was written"
	case errors.Is(err, verify.ErrPassword):
		return "the password of a cosign key comes from COSIGN_PASSWORD, or is asked for on a terminal"
	}
	if hint := stateHint(err); hint != "" {
		return hint
	}
	if code == exitCorrupt {
		switch {
		case errors.Is(err, transfer.ErrLost):
			return "delete what is wrong there, its tags too, and import it again: what has its tag counts as complete"
		case errors.Is(err, extract.ErrInvalid), errors.Is(err, extract.ErrLimit):
			return "it came like this from where it was made: have the image built again, or leave it out"
		}
	}
	if hint := explain(err); hint != "" {
		return hint
	}
	switch code {
	case exitUntrusted:
		return "was it signed with another key, changed on its way, or is it too old? nothing was written"
	case exitCorrupt:
		return "carry the bundle again from where it is whole: ferry verify tells; ferry copy replaces only what is wrong"
	case exitDenied:
		return "logins for S3 come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with AWS_ENDPOINT_URL for the service, from an AWS profile, or with --kubeconfig; those for registries: " + loginSources
	case exitUnavailable:
		var lookup *net.DNSError
		switch {
		case errors.As(err, &lookup) && lookup.IsNotFound:
			return "see the name of the host: the network knows no such name"
		case errors.Is(err, syscall.ECONNREFUSED):
			return "see host and port: nothing listens there, or a firewall refuses"
		}
		return "run the same command again: it goes on where it stopped"
	case exitBaseMissing:
		return "import the base bundle first, to the same destination and with the same --map"
	case exitNoSpace:
		return "make room and run the same command again: it goes on where it stopped"
	}
	return ""
}
