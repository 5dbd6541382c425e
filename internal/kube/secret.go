package kube

import (
	"fmt"
	"io"
)

// hidden is what is shown in place of a secret.
const hidden = "[secret]"

// Secret is a text that no formatting, encoding or reflection shows; the zero
// Secret is empty. Two Secrets can not be compared with ==.
type Secret struct {
	_ [0]func()
	// A pointer is not followed by fmt when the Secret is deep inside of
	// something whose methods fmt can not call.
	text *string
}

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format writes "[secret]", whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// String returns "[secret]".
func (s Secret) String() string { return hidden }

// GoString returns "[secret]".
func (s Secret) GoString() string { return hidden }

// MarshalText returns "[secret]", for all encodings that ask for text, JSON
// among them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
