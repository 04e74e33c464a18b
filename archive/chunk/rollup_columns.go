package chunk

// RollupColumns is a set of the columns of rollup.Columns. Ends and Counts are in every set.
type RollupColumns uint16

// The columns. With RollupHistograms the native histograms are wanted too: of each bucket
// those whose columns are in the set, First, Last, Sum, Correction, Resets and Changes.
const (
	RollupFirst RollupColumns = 1 << iota
	RollupLast
	RollupMin
	RollupMax
	RollupSums
	RollupCorrections
	RollupResets
	RollupChanges
	RollupTimes
	RollupEnded
	RollupHistograms
	// RollupAll are all columns.
	RollupAll RollupColumns = 1<<iota - 1
)

// Columns by number, as their heads stand in the bytes. The first six are of floats.
const (
	columnFirst = iota
	columnLast
	columnMin
	columnMax
	columnSum
	columnCorrection
	columnResets
	columnChanges

	rollupFloatColumns = columnResets
	rollupColumnCount  = columnChanges + 1
	// rollupValueColumns are those that hold samples, and no sums of them.
	rollupValueColumns = columnSum
)

// rollupRows are the columns of a series as integers, while they are encoded or decoded.
//
// A float is an integer and a residual, as in a stream of floats: the integer over a power
// of ten, and how many floats it is away from that. Where the integers have a step, they are
// counted in steps from the origin: a value k is origin + step·integer, a sum of m values m·origin +
// step·integer. All wraps around.
type rollupRows struct {
	counts    []int64
	integers  [rollupColumnCount][]int64
	residuals [rollupFloatColumns][]int64
}

// What a column's head says. Above headStream, the number of a guess is added.
const (
	headAbsent = 0 // the column wasn't kept
	headGuess  = 1 // the column is guess 0
	headStream = 2 // a stream of differences to a guess follows
	headsBytes = rollupColumnCount / 2
)

// Guesses of a column's integers by those of others. m is a bucket's number of samples.
// Columns that aren't kept count as zeros.
const (
	// Of the first value.
	guessBefore = 0 // the last value of the row before
	guessNone   = 1

	// Of the least and greatest value.
	guessEdge = 0 // the lesser or greater of the first and the last; else guessNone

	// Of sums.
	guessLine      = 0 // the way from the first to the last is straight
	guessCorners   = 1 // all but the first and the last are the mean of first, last, least and greatest
	guessMiddle    = 2 // all but the first and the last are between the least and the greatest
	guessSumNone   = 3
	guessFour      = 4 // first, last, least and greatest, and others that are alike in all rows
	guessFirst     = 5 // all are the first
	guessLeast     = 6
	guessGreatest  = 7
	guessSumFloat  = 8 // ordered bits, less those of m times the last
	sumGuesses     = 8 // those that guess makes
	sumGuessesLean = 1<<guessLine | 1<<guessSumNone | 1<<guessFirst

	// Of corrections, r being the number of resets.
	guessMean            = 0 // r times the mean
	guessUpper           = 1 // r times what is between the mean and the greatest
	guessTop             = 2 // r times the greatest
	guessPeak            = 3 // guessMean, and once the way from the least to the greatest
	guessCorrectionNone  = 4
	guessCorrectionFloat = 5 // ordered bits
	correctionGuesses    = 5 // those that guess makes

	// Of changes.
	guessChanges = 0 // none
	guessEach    = 1 // each sample but the first
)

// guessesOf is how many guesses a column has.
var guessesOf = [rollupColumnCount]int{2, 1, 2, 2, guessSumFloat + 1, guessCorrectionFloat + 1, 1, 2}

// needs are the columns that must be there before the guess is made, as bits.
func guessNeeds(column, guess int) uint {
	const first, last, least, greatest = 1 << columnFirst, 1 << columnLast, 1 << columnMin, 1 << columnMax
	switch column {
	case columnFirst:
		return []uint{last, 0}[guess]
	case columnMin, columnMax:
		return []uint{first | last, 0}[guess]
	case columnSum:
		return []uint{first | last, first | last | least | greatest, first | last | least | greatest, 0, first | last | least | greatest, first, least, greatest, last}[guess]
	case columnCorrection:
		const resets, sum = 1 << columnResets, 1 << columnSum
		return []uint{resets | sum, resets | sum | greatest, resets | greatest, resets | sum | least | greatest, 0, 0}[guess]
	default:
		return 0
	}
}

// guessesNothing tells that a guess is all zeros.
func guessesNothing(column, guess int) bool {
	switch column {
	case columnLast, columnResets:
		return true
	case columnSum:
		return guess == guessSumNone || guess == guessSumFloat
	case columnCorrection:
		return guess == guessCorrectionNone || guess == guessCorrectionFloat
	case columnChanges:
		return guess == guessChanges
	default:
		return guess == guessNone
	}
}

// guess fills dst with the guess of a column, for rows from index 0 on. The columns that it
// needs are there. before is the last value before the first row.
func (r *rollupRows) guess(column, guess int, before int64, dst []int64) {
	n := len(dst)
	first, last := r.integers[columnFirst], r.integers[columnLast]
	switch {
	case column == columnFirst && guess == guessBefore:
		if n > 0 {
			dst[0] = before
			copy(dst[1:], last)
		}
	case column == columnMin && guess == guessEdge:
		last = last[:n]
		for i, k := range first[:n] {
			dst[i] = min(k, last[i])
		}
	case column == columnMax && guess == guessEdge:
		last = last[:n]
		for i, k := range first[:n] {
			dst[i] = max(k, last[i])
		}
	case column == columnSum:
		r.guessSum(guess, dst)
	case column == columnCorrection:
		r.guessCorrection(guess, dst)
	case column == columnChanges && guess == guessEach:
		for i, m := range r.counts[:n] {
			dst[i] = max(m-1, 0)
		}
	default:
		clear(dst)
	}
}

func (r *rollupRows) guessSum(guess int, dst []int64) {
	n := len(dst)
	counts := r.counts[:n]
	switch guess {
	case guessLine:
		first, last := r.integers[columnFirst][:n], r.integers[columnLast][:n]
		for i, m := range counts {
			dst[i] = m * (first[i] + last[i]) >> 1
		}
	case guessCorners, guessMiddle, guessFour:
		first, last := r.integers[columnFirst][:n], r.integers[columnLast][:n]
		least, greatest := r.integers[columnMin][:n], r.integers[columnMax][:n]
		for i, m := range counts {
			ends, edges := first[i]+last[i], least[i]+greatest[i]
			switch guess {
			case guessCorners:
				dst[i] = ends + (m-2)*(ends+edges)>>2
			case guessMiddle:
				dst[i] = ends + (m-2)*edges>>1
			default:
				dst[i] = ends + edges
			}
		}
	case guessFirst, guessLeast, guessGreatest:
		of := r.integers[[...]int{columnFirst, columnMin, columnMax}[guess-guessFirst]][:n]
		for i, m := range counts {
			dst[i] = m * of[i]
		}
	default:
		clear(dst)
	}
}

func (r *rollupRows) guessCorrection(guess int, dst []int64) {
	clear(dst)
	if guess >= guessCorrectionNone {
		return
	}
	n := len(dst)
	sums, least, greatest := r.integers[columnSum], r.integers[columnMin], r.integers[columnMax]
	counts := r.counts[:n]
	for i, resets := range r.integers[columnResets][:n] {
		if resets == 0 || counts[i] == 0 {
			continue
		}
		switch guess {
		case guessMean:
			dst[i] = resets * sums[i] / counts[i]
		case guessUpper:
			dst[i] = resets * (sums[i]/counts[i] + greatest[i]) >> 1
		case guessTop:
			dst[i] = resets * greatest[i]
		case guessPeak:
			dst[i] = resets*sums[i]/counts[i] + greatest[i] - least[i]
		}
	}
}
