package s3store

// Requests returns how many requests it is to write an object of size bytes
// anew, when none is repeated: besides its parts, looking for what was left,
// beginning, joining, and looking at what came of it.
func (s *store) Requests(size int64) int {
	u := upload{size: size, partSize: partSize(size)}
	return int(u.parts()) + 4
}
