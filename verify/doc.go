// Package verify is the one door to trusted data: keys, signatures, and the
// [Document] that only [Open] can make. It knows no network: nothing here
// asks Rekor, Fulcio or a TUF mirror.
//
// # Format
//
// Keys are cosign's key files: an encrypted PKCS #8 private key
// ("ENCRYPTED SIGSTORE PRIVATE KEY") and a PKIX public key, both PEM. A
// signature is a Sigstore bundle v0.3 with a message signature over the exact
// bytes of the document and a public-key hint. What [Signer.Sign] writes has
// one encoding only (see [IsCanonical]).
//
// # Limits
//
// A signature has at most [MaxSignature] bytes; at most [MaxSignatures]
// stand beside one document.
//
// # Sources
//
// Sigstore bundle format 0.3, https://docs.sigstore.dev/about/bundle/; cosign
// key files as written by cosign 2 and 3.
package verify
