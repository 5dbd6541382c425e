// Package bundle hides the format in which images are carried: the manifest,
// where each byte of a volume comes from, and how volumes are written to and
// read from a [Store]. It knows no network. docs/format.md is the
// specification; testdata/vectors has bundles with their verdicts.
//
// # Format
//
// A set of tar volumes, each an OCI image layout that begins with bundle.json
// and its signature. The bytes of a volume are a function of bundle.json, the
// signature and the blobs: [Manifest.Layout] gives every header and offset
// before a byte is moved, and a reader compares instead of parsing tar.
//
// # Trust
//
// Only [Open] makes a [Set], by way of a [verify.Policy], and only a Set can be
// read and written. [Unverified] gives a [Manifest] to look at, and no more.
//
// # Limits
//
// See [MaxManifest], [MaxVolumes], [MaxSize], [SignatureSize].
//
// # Compatibility
//
// Format 1 is read and written; another number is an error.
//
// # Sources
//
// OCI Image Layout 1.1.1; POSIX.1-2017 pax, "ustar Interchange Format" and
// "pax Header Block"; RFC 8785 (JSON Canonicalization Scheme); Docker Image
// Specification v1.2.
package bundle
