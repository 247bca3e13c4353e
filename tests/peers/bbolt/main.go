// Command bbolt changes a database with Go's bbolt, for the tests that hand one file back and forth.
//
//	bbolt FILE SEED COMMITS [synced]
//
// prints two lines: a digest and count of what it found, and the same of what it left. Every transaction is random;
// the last thing it does is bbolt's own check. With "synced" it writes the free list to the file, as bbolt's tools do.
package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand"
	"os"
	"strconv"

	"go.etcd.io/bbolt"
)

func digest(db *bbolt.DB) string {
	h := fnv.New64a()
	n := 0
	add := func(b []byte) {
		var l [8]byte
		binary.LittleEndian.PutUint64(l[:], uint64(len(b)))
		h.Write(l[:])
		h.Write(b)
	}
	must(db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			add(name)
			return b.ForEach(func(k, v []byte) error {
				add(k)
				add(v)
				n++
				return nil
			})
		})
	}))
	return fmt.Sprintf("%016x %d", h.Sum64(), n)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	must(err)
	return n
}

func value(r *rand.Rand, max int) []byte {
	v := make([]byte, r.Intn(max))
	r.Read(v)
	return v
}

// Appends to and deletes from the bucket whose keys grow, as revisions do.
func revisions(r *rand.Rand, b *bbolt.Bucket) error {
	last := uint64(0)
	if k, _ := b.Cursor().Last(); len(k) >= 8 {
		last = binary.BigEndian.Uint64(k)
	}
	b.FillPercent = 0.9
	for i := r.Intn(120); i > 0; i-- {
		last++
		key := make([]byte, 17)
		binary.BigEndian.PutUint64(key, last)
		key[8] = '_'
		max := 1200
		if r.Intn(60) == 0 {
			max = 20000
		}
		if err := b.Put(key, value(r, max)); err != nil {
			return err
		}
	}
	if r.Intn(3) > 0 {
		return nil
	}
	percent := []int{2, 30, 90, 99, 100}[r.Intn(5)]
	var keys [][]byte
	skip := r.Intn(200)
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(keys) < 600; k, _ = c.Next() {
		if skip--; skip < 0 && r.Intn(100) < percent {
			keys = append(keys, append([]byte{}, k...))
		}
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func random(r *rand.Rand, b *bbolt.Bucket) error {
	for i := r.Intn(40); i > 0; i-- {
		k := []byte(fmt.Sprintf("k%05d", r.Intn(3000)))
		var err error
		if r.Intn(100) < 45 {
			err = b.Delete(k)
		} else {
			err = b.Put(k, value(r, 300))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func main() {
	synced := len(os.Args) > 4 && os.Args[4] == "synced"
	db, err := bbolt.Open(os.Args[1], 0o600, &bbolt.Options{NoFreelistSync: !synced})
	must(err)
	r := rand.New(rand.NewSource(number(os.Args[2])))
	fmt.Println(digest(db))
	for i := number(os.Args[3]); i > 0; i-- {
		must(db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{"auth", "key", "lease", "members", "meta"} {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				if name == "key" {
					err = revisions(r, b)
				} else if r.Intn(3) == 0 {
					err = random(r, b)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
	}
	must(db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	}))
	fmt.Println(digest(db))
	must(db.Close())
}
