package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ferry/bundle"
	"ferry/verify"
)

func newKeygenCommand(a *app) *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key pair: cosign.key and cosign.pub",
		Long: `Make a key pair to sign bundles with, in cosign's own format: PREFIX.key,
encrypted with a password, stays outside; PREFIX.pub goes to the site. Keys of
"cosign generate-key-pair" can be used as well.

The password comes from COSIGN_PASSWORD, or is asked for on the terminal.`,
		Example: `  ferry keygen
  COSIGN_PASSWORD="$(cat password)" ferry keygen --output-key-prefix site`,
		Args: wantArgs(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keygen(cmd.Context(), prefix) },
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "name of the files before .key and .pub")
	return cmd
}

func (a *app) keygen(ctx context.Context, prefix string) error {
	private, public := prefix+".key", prefix+".pub"
	for _, name := range []string{private, public} {
		if !missing(name) {
			return fmt.Errorf("%s: %w: it is not overwritten", name, bundle.ErrExists)
		}
	}
	password, err := a.password(ctx, "password for the new private key", true)
	if err != nil {
		return err
	}
	privatePEM, publicPEM, err := verify.GenerateKeys(password)
	if err != nil {
		return err
	}
	key, err := verify.ParseKey(publicPEM)
	if err != nil {
		return err
	}
	if err := writeNew(private, privatePEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(public, publicPEM, 0o644); err != nil {
		return errors.Join(err, os.Remove(private))
	}
	a.Say("wrote %s, which stays secret, and %s, which the site verifies with", private, public)
	return a.Result(struct {
		Private     string `json:"private"`
		Public      string `json:"public"`
		Fingerprint string `json:"fingerprint"`
	}{private, public, key.Fingerprint()}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n%s\n", private, public)
		return err
	})
}

// writeNew writes a file that must not be there.
func writeNew(name string, content []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(name)
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// password returns the password of a private key, from COSIGN_PASSWORD or the
// terminal.
func (a *app) password(ctx context.Context, prompt string, twice bool) ([]byte, error) {
	if value, ok := a.lookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(value), nil
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return nil, errNoPassword
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprintf(a.stderr, "ferry: %s: ", prompt)
		defer fmt.Fprintln(a.stderr)
		return readPassword(ctx, int(terminal.Fd()))
	}
	password, err := ask(prompt)
	if err != nil || !twice {
		return password, err
	}
	again, err := ask("the same password again")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(password, again) {
		return nil, usagef("the two passwords are not the same")
	}
	return password, nil
}

// readPassword reads a line from a terminal without showing it. When ctx ends,
// the terminal is put back as it was; the read that is under way ends with the
// process.
func readPassword(ctx context.Context, fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
