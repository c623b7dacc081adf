// Vectors judges proofs that somebody else made, and cosignatures, with Go's code alone.
// `oracle vectors` reads lines from stdin and answers each with ok or bad:
//
//	record INDEX SIZE ROOT LEAFHASH [HASH...]
//	tree OLD NEW OLDROOT NEWROOT [HASH...]
//
// `oracle cosigned NOTE WITNESS-VKEY` checks a cosignature (key type 4).
package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func judge(fields []string) error {
	a, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return err
	}
	b, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return err
	}
	var hashes []tlog.Hash
	for _, text := range fields[3:] {
		hash, err := tlog.ParseHash(text)
		if err != nil {
			return err
		}
		hashes = append(hashes, hash)
	}
	if fields[0] == "record" {
		return tlog.CheckRecord(hashes[2:], b, hashes[0], a, hashes[1])
	}
	return tlog.CheckTree(hashes[2:], b, hashes[1], a, hashes[0])
}

func vectors() error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		answer := "ok"
		if judge(strings.Fields(in.Text())) != nil {
			answer = "bad"
		}
		fmt.Fprintln(out, answer)
	}
	return in.Err()
}

// cosigner is a note.Verifier for timestamped cosignatures; x/mod itself knows only a log's own signatures.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	said := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(said), sig[8:])
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a witness key")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 33 || raw[0] != 4 {
		return nil, fmt.Errorf("not a witness key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		return nil, fmt.Errorf("the key id does not belong to the key")
	}
	return cosigner{parts[0], binary.BigEndian.Uint32(sum[:]), raw[1:]}, nil
}

func cosigned(path, vkey string) error {
	verifier, err := newCosigner(vkey)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = note.Open(text, note.VerifierList(verifier))
	return err
}
