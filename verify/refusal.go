package verify

// refusal is a reason not to trust a document. Every refusal is
// [ErrUntrusted].
type refusal string

func (r refusal) Error() string { return string(r) }

// Is reports whether target is [ErrUntrusted].
func (r refusal) Is(target error) bool { return target == ErrUntrusted }

// ErrUntrusted is what every refusal is: nothing may be done with the
// document.
const ErrUntrusted = refusal("not trusted")

// Why a document is refused; test for them with errors.Is.
const (
	// ErrNoKey says that there is nothing to verify with.
	ErrNoKey = refusal("not trusted: no key to verify with")
	// ErrUnsigned says that the document has no signature (T21).
	ErrUnsigned = refusal("not trusted: there is no signature")
	// ErrSignature says that a signature is damaged, over other content, or
	// not by the key that it names (T02, T22).
	ErrSignature = refusal("not trusted: bad signature")
	// ErrWrongKey says that none of the keys that count has signed (T22).
	ErrWrongKey = refusal("not trusted: signed with the wrong key")
	// ErrSameKey says that there would be signatures enough, were they not
	// of one key (T22).
	ErrSameKey = refusal("not trusted: the same key signed more than once")
	// ErrThreshold says that too few keys have signed.
	ErrThreshold = refusal("not trusted: too few signatures")
	// ErrKeyNotYetValid and ErrKeyExpired say that a signature would count
	// at another time (T23).
	ErrKeyNotYetValid = refusal("not trusted: the key is not valid yet")
	ErrKeyExpired     = refusal("not trusted: the key has expired")
	// ErrName says that the policy has no role for bundles of that name.
	ErrName = refusal("not trusted: the policy does not cover the bundle's name")
	// ErrTarget says that the role may not write where an image goes (T29).
	ErrTarget = refusal("not trusted: the policy does not allow the target")
	// ErrTooOld says that the bundle is older than the role allows, or was
	// made further in the future than that (T26).
	ErrTooOld = refusal("not trusted: the bundle is too old")
	ErrFuture = refusal("not trusted: the bundle is from the future")
	// ErrExpired says that the bundle's own time of expiry has come.
	ErrExpired = refusal("not trusted: the bundle has expired")
	// ErrPolicyExpired says that the policy must be renewed first (T23).
	ErrPolicyExpired = refusal("not trusted: the policy has expired")
	// ErrPolicyVersion says that a policy does not follow the one before.
	ErrPolicyVersion = refusal("not trusted: the policy's version does not grow")
	// ErrPolicyFork says that there are two policies of one version: somebody
	// who can sign policies has signed both.
	ErrPolicyFork = refusal("not trusted: another policy of the same version was accepted")
	// ErrRollback says that a newer bundle of the name was accepted (T24).
	ErrRollback = refusal("not trusted: the bundle is older than one that was accepted")
	// ErrEquivocation says that there are two bundles of one name and
	// sequence: somebody who can sign bundles has signed both (T24).
	ErrEquivocation = refusal("not trusted: another bundle was accepted with the sequence")
	// ErrFastForward says that the sequence of the bundle is so high that all
	// that follow would be refused (T25).
	ErrFastForward = refusal("not trusted: the bundle's sequence jumps ahead")
	// ErrMemory says that what a site remembers can not be read.
	ErrMemory = refusal("not trusted: the trust state is damaged")
	// ErrImageUnsigned says that an image has no signature of its own, though
	// the policy wants one.
	ErrImageUnsigned = refusal("not trusted: the image is not signed")
	// ErrImageSignature says that the signatures of an image are damaged, of
	// another image, or without the proofs that a keyless one needs.
	ErrImageSignature = refusal("not trusted: bad signature of the image")
	// ErrImageSigner says that none of the keys and identities that count for
	// an image has signed it.
	ErrImageSigner = refusal("not trusted: the image is not signed by those who count")
	// ErrImageThreshold says that too few of them have.
	ErrImageThreshold = refusal("not trusted: too few signatures of the image")
	// ErrAttestation and ErrSBOM say that an attestation that the policy wants
	// is not there, or is not signed by those who count.
	ErrAttestation = refusal("not trusted: the image lacks an attestation")
	ErrSBOM        = refusal("not trusted: the image lacks a signed SBOM")
)
