package archive

// FlushAll writes what memtables have to table files.
func (a *Archive) FlushAll() error { return a.db.Flush() }

// CheckUntil is Check until an error of more, which is asked before each record.
func CheckUntil(dir string, report func(Fault), more func() error) (CheckReport, error) {
	return check(dir, 32<<20, report, func(string, uint64, uint64, int) error { return more() })
}
