// Package transfer joins the floors: it exports images from registries into a
// bundle, copies bundles between stores, imports a bundle into a registry or
// an image layout, and moves single images. It does what has to be done when
// it looks at what is there: it keeps no journal, so to run the same call
// again is to go on.
//
// # Order of writing
//
// In a bundle: volumes, then the signature, then bundle.json. In a registry:
// blobs, then manifests by digest with children first, then referrers, then
// everything is read back, then tags, all together. Nothing is written before
// the plan is complete and possible.
//
// A list of referrers, under the referrers tag, is for a registry that does not
// list them itself, and is pushed to no other.
//
// # Sources
//
// OCI Distribution 1.1.1, "Pushing Manifests with Subject" and "Referrers Tag
// Schema"; the tag scheme of cosign (sha256-<hex>.sig, .att, .sbom).
package transfer
