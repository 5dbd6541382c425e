package bundle

import (
	"bytes"
	"fmt"
)

// Names of the objects of a bundle in its folder.
const (
	ManifestName  = "bundle.json"
	SignatureName = "bundle.sigstore.json"
	// PendingSuffix is on the names of manifest and signature until all
	// volumes are complete.
	PendingSuffix = ".pending"
)

// SignatureSize, in bytes, is the room for the signature in a volume. It is
// filled up with spaces, so that no offset depends on a signature's length.
// A key signature has about 400 bytes; the room is for a chain of
// certificates.
const SignatureSize = 16 << 10

// VolumeName returns the name of volume v, which counts from 0.
func VolumeName(v int) string { return fmt.Sprintf("volume-%03d.tar", v+1) }

// PadSignature returns a signature at the size it has in volumes.
func PadSignature(sig []byte) ([]byte, error) {
	if len(sig) > SignatureSize {
		return nil, fmt.Errorf("signature has %d bytes, more than %d", len(sig), SignatureSize)
	}
	return append(bytes.Clone(sig), bytes.Repeat([]byte(" "), SignatureSize-len(sig))...), nil
}

// File is where one entry stands in a volume.
type File struct {
	Entry
	Start int64 // offset of the tar header in the volume, in bytes
}

// Header returns the tar header that stands before the content.
func (f File) Header() []byte { return TarHeader(f.Path, f.Size) }

// Content returns the offset of the content in the volume, in bytes.
func (f File) Content() int64 { return f.Start + headerSize(f.Size) }

// Padding returns how many zero bytes follow the content.
func (f File) Padding() int64 { return padding(f.Size) }

// End returns the offset of what follows the file, in bytes.
func (f File) End() int64 { return f.Start + fileSize(f.Size) }

// VolumeLayout says where every byte of a volume comes from.
type VolumeLayout struct {
	HeadSize int64  // bytes of bundle.json and its signature with their headers
	Files    []File // in their order
	Size     int64  // of the whole volume, in bytes
}

// Trailer returns the offset of the zero blocks that end the volume, in bytes.
func (l VolumeLayout) Trailer() int64 { return l.Size - trailerSize }

// Layout returns the layout of each volume of m when bundle.json has
// manifestSize bytes. No byte of a volume depends on anything else than
// bundle.json, its signature, and the content that it names.
func (m *Manifest) Layout(manifestSize int64) []VolumeLayout {
	layouts := make([]VolumeLayout, len(m.Volumes))
	head := headSize(manifestSize)
	for v, volume := range m.Volumes {
		at := head
		files := make([]File, len(volume.Entries))
		for i, e := range volume.Entries {
			files[i] = File{Entry: e, Start: at}
			at = files[i].End()
		}
		layouts[v] = VolumeLayout{HeadSize: head, Files: files, Size: at + trailerSize}
	}
	return layouts
}

func headSize(manifestSize int64) int64 { return fileSize(manifestSize) + fileSize(SignatureSize) }

// head returns the first bytes of every volume of a set.
func head(raw, signature []byte) []byte {
	var b bytes.Buffer
	for _, f := range []struct {
		name    string
		content []byte
	}{{ManifestName, raw}, {SignatureName, signature}} {
		b.Write(TarHeader(f.name, int64(len(f.content))))
		b.Write(f.content)
		b.Write(make([]byte, padding(int64(len(f.content)))))
	}
	return b.Bytes()
}
