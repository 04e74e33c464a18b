package archive

import (
	"context"
	"errors"
	"fmt"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// The most that the name and the value of a note may have, in bytes.
const (
	noteNameMax  = 512
	noteValueMax = 1 << 20
)

var errNote = errors.New("a note has a name of 1 to 512 bytes and a value of at most 1 MiB")

// SaveNotes writes small records of the layers above in one batch. With durable it returns when they are fsynced; without it
// they survive the end of the process, and a power cut unless nothing that was written later is durable. Errors are those of
// Write, since samples may wait for a note. It may be called from several goroutines.
func (a *Archive) SaveNotes(ctx context.Context, notes []arrival.Note, durable bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	var b rocks.Batch
	for _, n := range notes {
		if n.Name == "" || len(n.Name) > noteNameMax || len(n.Value) > noteValueMax {
			return fmt.Errorf("save a note of %d and %d bytes: %w", len(n.Name), len(n.Value), errNote)
		}
		key := append([]byte(format.MetaNotePrefix), n.Name...)
		if n.Value == nil {
			b.Delete(family(format.FamilyMeta), key)
		} else {
			b.Put(family(format.FamilyMeta), key, format.AppendNote(nil, key, n.Value))
		}
	}
	if b.Len() == 0 {
		return nil
	}
	err := a.disk.check()
	if err == nil {
		err = a.db.Write(&b, durable && !faultNoSync)
	}
	if err != nil {
		a.state.failed(err)
		return a.state.unavailable(fmt.Errorf("save notes: %w", err))
	}
	return nil
}

// EachNote calls f for the notes whose names begin with prefix, in the order of names, with the whole name. The value is f's
// during the call only.
func (a *Archive) EachNote(prefix string, f func(name string, value []byte) error) error {
	return a.eachMeta(format.MetaNotePrefix+prefix, func(rest, record []byte) error {
		name := prefix + string(rest)
		value, err := format.ParseNote(append([]byte(format.MetaNotePrefix), name...), record)
		if err != nil {
			return err
		}
		return f(name, value)
	})
}
