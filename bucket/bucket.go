// Package bucket opens object storage from the YAML form that Thanos and Mimir share.
package bucket

import (
	_ "github.com/thanos-io/objstore/providers/azure"
	_ "github.com/thanos-io/objstore/providers/filesystem"
	_ "github.com/thanos-io/objstore/providers/gcs"
	_ "github.com/thanos-io/objstore/providers/s3"
)
