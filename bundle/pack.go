package bundle

import (
	"fmt"
	"slices"

	"ferry/verify"
)

// Blob is some content of known digest and size, a manifest among them.
type Blob struct {
	Digest verify.Digest
	Size   int64 // bytes
}

// Group is the content of one image that is to be packed together.
type Group struct {
	Small  []Blob // manifests, parents before children, and configs
	Layers []Blob // everything else
}

// minPiece, in bytes, is the least that is worth cutting off a blob to fill
// up a volume.
const minPiece = 1 << 20

// Pack fills in the volumes of m: documents at the head of each, then
// manifests and configs, then layers, each layer once in the set. With a
// volumeSize other than 0 no volume has more bytes than that. A layer is cut
// only when an empty volume could not hold it. The manifests and configs of a
// group are in every volume that layers of the group went to. The rest of m
// must be complete.
func (m *Manifest) Pack(documents []Document, groups []Group, volumeSize int64) error {
	if volumeSize == 0 {
		volumeSize = MaxSize
	}
	groups = smallOnce(groups)
	// How much room bundle.json takes is known only when everything is
	// packed: try with what was needed the last time until it fits.
	for assumed := int64(4 << 10); ; {
		p := packer{limit: volumeSize, head: headSize(assumed), documents: documents, packed: map[verify.Digest]bool{}}
		volumes, err := p.pack(groups)
		if err != nil {
			return err
		}
		m.Volumes = volumes
		raw, err := m.Encode()
		if err != nil {
			return err
		}
		if int64(len(raw)) <= assumed {
			return nil
		}
		assumed = int64(len(raw)) + int64(len(raw))/64
	}
}

// smallOnce returns groups in which nothing is a layer that is a manifest or a
// config somewhere: it stands among the small content then.
func smallOnce(groups []Group) []Group {
	small := map[verify.Digest]bool{}
	for _, g := range groups {
		for _, b := range g.Small {
			small[b.Digest] = true
		}
	}
	list := make([]Group, len(groups))
	for i, g := range groups {
		list[i].Small = slices.Clone(g.Small)
		for _, b := range g.Layers {
			if small[b.Digest] {
				list[i].Small = append(list[i].Small, b)
			} else {
				list[i].Layers = append(list[i].Layers, b)
			}
		}
	}
	return list
}

type packer struct {
	limit     int64
	head      int64
	documents []Document
	packed    map[verify.Digest]bool // layers that are in a volume

	volumes []Volume
	// The volume being filled: small content comes before the layers.
	small, layers []Entry
	inSmall       map[verify.Digest]bool
	size          int64
}

func (p *packer) pack(groups []Group) ([]Volume, error) {
	p.open()
	for _, g := range groups {
		added := false
		for _, layer := range g.Layers {
			if p.packed[layer.Digest] {
				continue
			}
			if err := p.addLayer(g, layer); err != nil {
				return nil, err
			}
			p.packed[layer.Digest] = true
			added = true
		}
		if !added {
			if p.smallCost(g) > p.room() && len(p.small)+len(p.layers) > 0 {
				p.close()
			}
			if err := p.addSmall(g); err != nil {
				return nil, err
			}
		}
	}
	p.close()
	if len(p.volumes) > MaxVolumes {
		return nil, fmt.Errorf("%d volumes of %d bytes would be needed, more than %d: choose a larger volume size", len(p.volumes), p.limit, MaxVolumes)
	}
	return p.volumes, nil
}

func (p *packer) open() {
	p.small, p.layers, p.inSmall = nil, nil, map[verify.Digest]bool{}
	p.size = p.head + trailerSize
	for _, d := range p.documents {
		p.size += fileSize(int64(len(d.Content)))
	}
}

// close ends the volume being filled and begins the next.
func (p *packer) close() {
	if len(p.small)+len(p.layers) > 0 {
		entries := make([]Entry, 0, len(p.documents)+len(p.small)+len(p.layers))
		for _, d := range p.documents {
			entries = append(entries, d.Entry())
		}
		p.volumes = append(p.volumes, Volume{Entries: append(append(entries, p.small...), p.layers...)})
	}
	p.open()
}

func (p *packer) room() int64 { return p.limit - p.size }

// smallCost returns what the small content of g adds to this volume.
func (p *packer) smallCost(g Group) int64 {
	var n int64
	seen := map[verify.Digest]bool{}
	for _, b := range g.Small {
		if !p.inSmall[b.Digest] && !seen[b.Digest] {
			n += fileSize(b.Size)
		}
		seen[b.Digest] = true
	}
	return n
}

func (p *packer) addSmall(g Group) error {
	if cost := p.smallCost(g); cost > p.room() {
		return fmt.Errorf("a volume of %d bytes is too small: bundle.json, signature and manifests of one image take %d", p.limit, p.size+cost)
	}
	for _, b := range g.Small {
		if !p.inSmall[b.Digest] {
			p.inSmall[b.Digest] = true
			p.small = append(p.small, Entry{Digest: b.Digest, Path: BlobPath(b.Digest), Size: b.Size})
			p.size += fileSize(b.Size)
		}
	}
	return nil
}

func (p *packer) addLayer(g Group, layer Blob) error {
	if p.smallCost(g)+fileSize(layer.Size) <= p.room() {
		return p.addWhole(g, layer)
	}
	empty := packer{limit: p.limit, head: p.head, documents: p.documents}
	empty.open()
	if empty.smallCost(g)+fileSize(layer.Size) <= empty.room() {
		p.close()
		return p.addWhole(g, layer)
	}
	return p.addCut(g, layer)
}

func (p *packer) addWhole(g Group, layer Blob) error {
	if err := p.addSmall(g); err != nil {
		return err
	}
	p.layers = append(p.layers, Entry{Digest: layer.Digest, Path: BlobPath(layer.Digest), Size: layer.Size})
	p.size += fileSize(layer.Size)
	return nil
}

// addCut adds a layer that is larger than a volume as pieces, one in each
// volume from this one on, or from the next when this one is nearly full.
func (p *packer) addCut(g Group, layer Blob) error {
	if pieceRoom(p.room()-p.smallCost(g)) < min(minPiece, p.limit/2) {
		p.close()
	}
	for offset := int64(0); offset < layer.Size; {
		if err := p.addSmall(g); err != nil {
			return err
		}
		size := min(layer.Size-offset, pieceRoom(p.room()))
		if size <= 0 {
			return fmt.Errorf("a volume of %d bytes is too small: there is no room for a piece of %s", p.limit, layer.Digest)
		}
		p.layers = append(p.layers, Entry{Digest: layer.Digest, Offset: offset, Path: PiecePath(layer.Digest, offset), Size: size})
		p.size += fileSize(size)
		if offset += size; offset < layer.Size {
			p.close()
		}
	}
	return nil
}

// pieceRoom returns how many bytes of content fit into room bytes.
func pieceRoom(room int64) int64 {
	size := (room - blockSize) / blockSize * blockSize
	if size >= maxOctal {
		size = max(maxOctal-blockSize, (room-3*blockSize)/blockSize*blockSize)
	}
	return size
}
