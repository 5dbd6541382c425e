package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON is nested; real manifests have 5 levels.
const maxDepth = 32

// known are the keys that [Manifest] and [Descriptor] are read from.
// encoding/json takes them in any letter case, other readers do not.
var known = map[string]bool{
	"schemaVersion": true, "mediaType": true, "artifactType": true, "config": true, "layers": true, "manifests": true,
	"subject": true, "annotations": true, "digest": true, "size": true, "platform": true, "urls": true, "data": true,
	"os": true, "architecture": true, "variant": true, "os.version": true, "os.features": true, "fsLayers": true,
}

// unambiguous returns an error when JSON readers could take content for
// different things (T11, T14).
func unambiguous(content []byte) error {
	if !utf8.Valid(content) {
		return errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	if err := checkValue(dec, 0, false); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// checkValue reads one value. free says that its keys are anybody's own, as in
// annotations.
func checkValue(dec *json.Decoder, depth int, free bool) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('['):
		for dec.More() {
			if err := checkValue(dec, depth+1, free); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		if err := checkObject(dec, depth, free); err != nil {
			return err
		}
	default:
		return nil
	}
	_, err = dec.Token() // the closing delimiter
	return err
}

func checkObject(dec *json.Decoder, depth int, free bool) error {
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		if seen[key] {
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		if !free && !known[key] {
			for k := range known {
				if strings.EqualFold(k, key) {
					return fmt.Errorf("key %q is not %q", key, k)
				}
			}
		}
		if err := checkValue(dec, depth+1, free || key == "annotations"); err != nil {
			return err
		}
	}
	return nil
}
