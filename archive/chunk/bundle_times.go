package chunk

// appendBundledTimes and bundledTimes are AppendTimes and TimesDecoder, for clock_record.go.
func appendBundledTimes(dst []byte, times []int64) []byte { return AppendTimes(dst, times) }

type bundledTimes = TimesDecoder
