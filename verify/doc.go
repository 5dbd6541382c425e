// Package verify is the one door to trusted data: keys, signatures, the
// [Policy] that says whose count for what, and the [Document] that only
// [Policy.Open] can make. It knows no network: nothing here asks Rekor, Fulcio
// or a TUF mirror.
//
// # Format
//
// Keys are cosign's key files: an encrypted PKCS #8 private key
// ("ENCRYPTED SIGSTORE PRIVATE KEY") and a PKIX public key, both PEM. A
// signature is a Sigstore bundle v0.3 with a message signature over the exact
// bytes of the document and a public-key hint. What [Signer.Sign] writes has
// one encoding only (see [IsCanonical]).
//
// A policy is YAML with the fields of [Draft] and nothing else; it counts when
// its own root has signed it ([OpenPolicy]).
//
// The signatures of images ([ImageRule]) are layers of cosign's .sig and .att
// manifests, whose proofs stand in annotations, and Sigstore bundles up to v0.3
// with an in-toto statement in a DSSE envelope, or over the manifest.
//
// # Limits
//
// A signature has at most [MaxSignature] bytes; at most [MaxSignatures]
// stand beside one document. A policy has at most [MaxPolicy], a signature or
// attestation of an image [MaxEvidence], and an image [MaxEvidences] of them.
//
// # Sources
//
// Sigstore bundle format 0.3, https://docs.sigstore.dev/about/bundle/; DSSE 1.0;
// in-toto Statement v0.1 and v1; cosign's SIGNATURE_SPEC.md; cosign
// key files as written by cosign 2 and 3. Roles, thresholds and the signing of
// a new policy by the old one follow The Update Framework 1.0, section 5.3.
package verify
