package ints_test

import (
	"fmt"
	"testing"

	"varve/archive/chunk/ints"
)

// benchmarkLists are how many lists of each kind are coded in turn, so that branches
// can't be learned by heart.
const benchmarkLists = 8

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{120, 480, 5760} {
		for _, l := range lists {
			b.Run(fmt.Sprintf("%d/%s", n, l.name), func(b *testing.B) {
				var e ints.Encoder
				all := make([][]int64, benchmarkLists)
				for i := range all {
					all[i] = l.make(randomness(uint64(i)), n)
				}
				var dst []byte
				for b.Loop() {
					dst = dst[:0]
					for _, x := range all {
						dst = e.Append(dst, x)
					}
				}
				perValue(b, n)
				b.ReportMetric(float64(len(dst))/float64(n*benchmarkLists), "B/value")
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{120, 480, 5760} {
		for _, l := range lists {
			b.Run(fmt.Sprintf("%d/%s", n, l.name), func(b *testing.B) {
				var e ints.Encoder
				var d ints.Decoder
				var src []byte
				for i := range benchmarkLists {
					src = e.Append(src, l.make(randomness(uint64(i)), n))
				}
				x := make([]int64, n)
				for b.Loop() {
					for rest := src; len(rest) > 0; {
						used, err := d.Decode(rest, n, x)
						if err != nil {
							b.Fatal(err)
						}
						rest = rest[used:]
					}
				}
				perValue(b, n)
			})
		}
	}
}

func perValue(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*benchmarkLists), "ns/value")
}
