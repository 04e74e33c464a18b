package format

// Day is a UTC day: days since 1970-01-01, negative before.
type Day int32

// Month is a UTC month: months since January 1970, negative before.
type Month int16

const (
	// DayMillis is the length of a UTC day in milliseconds.
	DayMillis = 24 * 60 * 60 * 1000
	// SlotMillis is the length of the slots that a day's runs are kept in.
	SlotMillis = 2 * 60 * 60 * 1000
	// SlotsPerDay is the number of slots in a day.
	SlotsPerDay = DayMillis / SlotMillis
	// MinTimeMillis is 0001-01-01T00:00:00Z and MaxTimeMillis the last millisecond
	// of the year 4599. Both fit Month with room to spare; a time outside is
	// nobody's measurement.
	MinTimeMillis = -62135596800000
	MaxTimeMillis = 82994803199999
)

// DayOf returns the day that t (Unix ms, within MinTimeMillis and MaxTimeMillis) belongs to.
func DayOf(t int64) Day { return Day(floorDiv(t, DayMillis)) }

// StartMillis is the first millisecond of the day.
func (d Day) StartMillis() int64 { return int64(d) * DayMillis }

// EndMillis is the first millisecond after the day.
func (d Day) EndMillis() int64 { return (int64(d) + 1) * DayMillis }

// Month returns the month that the day lies in.
func (d Day) Month() Month {
	y, m := civil(int64(d))
	return Month((y-1970)*12 + m - 1)
}

// FirstDay is the month's first day.
func (m Month) FirstDay() Day {
	y := floorDiv(int64(m), 12)
	return Day(daysFromCivil(1970+y, int64(m)-y*12+1))
}

// MonthOf returns the month that t lies in.
func MonthOf(t int64) Month { return DayOf(t).Month() }

// SlotStart is the first millisecond of the slot that t lies in.
func SlotStart(t int64) int64 { return floorDiv(t, SlotMillis) * SlotMillis }

// SlotOf returns the number of the slot within its day, 0 to SlotsPerDay-1.
func SlotOf(t int64) uint8 { return uint8((t - DayOf(t).StartMillis()) / SlotMillis) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// civil returns year and month (1-12) of a day. The arithmetic counts from
// 0000-03-01, so that the leap day is the last of its year; see Howard Hinnant,
// "chrono-compatible low-level date algorithms".
func civil(day int64) (year, month int64) {
	z := day + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year = yoe + era*400
	if mp < 10 {
		return year, mp + 3
	}
	return year + 1, mp - 9
}

// daysFromCivil returns the first day of a month.
func daysFromCivil(year, month int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	yoe := year - era*400
	doy := (153*(month-3) + 2) / 5
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}

// MinDay is the first day that the archive can hold.
const MinDay Day = MinTimeMillis / DayMillis

// ClampTime brings t into the range of times that the archive can hold.
func ClampTime(t int64) int64 { return min(max(t, MinTimeMillis), MaxTimeMillis) }

const (
	dayBias   = 1 << 31
	monthBias = 1 << 15
)
