package archive

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// TestBookRemembersWhatItChose has the times of a chosen clock forgotten while the next
// candidate is decoded.
func TestBookRemembersWhatItChose(t *testing.T) {
	var b rocks.Batch
	book := clockBook{day: 0, batch: &b, groups: map[format.GroupID][]*bookedClock{1: {}}}
	grid := func(n int, step int64) (times []int64) {
		for i := range n {
			times = append(times, int64(i)*step)
		}
		return times
	}
	book.make(1, 0, grid(2000, 1000), 1)
	two := book.make(1, 1, grid(4000, 500), 2)
	two.times = nil                 // as after load, or after others were decoded
	book.decoded = bookBytesMax + 1 // other groups' clocks
	some := grid(1000, 1000)        // half of the first clock
	id, times, err := book.find(1, some)
	require.NoError(t, err)
	require.NotEqual(t, chunk.NoClock, id)
	require.NotNil(t, times)
}

// TestBookIsBounded makes more clocks than may be decoded at once.
func TestBookIsBounded(t *testing.T) {
	var b rocks.Batch
	book := clockBook{day: 0, batch: &b, groups: map[format.GroupID][]*bookedClock{}}
	times := make([]int64, 5760)
	for g := range format.GroupID(bookBytesMax/(8*5760) + 200) {
		for i := range times {
			times[i] = int64(i)*15000 + int64(g)
		}
		book.groups[g] = []*bookedClock{}
		_, _, err := book.find(g, times)
		require.NoError(t, err)
	}
	held := 0
	for _, clocks := range book.groups {
		for _, c := range clocks {
			held += 8 * cap(c.times)
		}
	}
	require.LessOrEqual(t, held, bookBytesMax+(1<<20))
}
