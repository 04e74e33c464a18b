package archive

import "varve/rocks"

// OnStep makes f be told of the steps of sealing. Nothing may be being sealed.
func (a *Archive) OnStep(f func(step string)) { a.stepped = f }

// SmallSeals makes bundles, chunks and batches of sealing so small that little data has
// many of each.
func (a *Archive) SmallSeals() {
	a.sealLimits = sealLimits{bundleBytes: 200, bundleChunks: 5, chunkSamples: 50, batchBytes: 1000}
}

// OpenDatabase opens the database of a closed archive, to damage it.
func OpenDatabase(dir string) (*rocks.DB, error) {
	return rocks.Open(dir+"/"+databaseDir, rocks.Options{Families: families()})
}
