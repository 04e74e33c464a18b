package fleet

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Naming is how targets and their series are labelled.
type Naming string

// The ways of labelling.
const (
	// Short is what a Prometheus adds for a host of its own: instance and job.
	Short Naming = "short"
	// Kubernetes is what service discovery and relabelling usually leave on a pod's
	// series: about 450 bytes a series, of them about 300 that no other pod shares.
	Kubernetes Naming = "kubernetes"
)

// targetName is the labels of a target.
type targetName []labels.Label

// target makes the labels of the i-th target of a job.
func (n Naming) target(job string, i int, random uint64) targetName {
	if n != Kubernetes {
		return targetName{{Name: "instance", Value: fmt.Sprintf("%s-host-%04d:9100", job, i)}, {Name: "job", Value: job}}
	}
	namespace := fmt.Sprintf("team-%d-production", random%7)
	uid := randomHex(random+1, 16)
	uid = uid[:8] + "-" + uid[8:12] + "-" + uid[12:16] + "-" + uid[16:20] + "-" + uid[20:]
	return targetName{
		{Name: "cluster", Value: "production-eu-west-1"},
		{Name: "container", Value: job},
		{Name: "endpoint", Value: "http-metrics"},
		{Name: "id", Value: "/kubepods/burstable/pod" + uid + "/" + randomHex(random+2, 32)},
		{Name: "image", Value: "images.example/platform/" + job + ":v2.31.4"},
		// The index keeps the instance of every pod apart, as an address does.
		{Name: "instance", Value: fmt.Sprintf("10.%d.%d.%d:%d", random>>8&255, random>>16&255, random>>24&255, 8000+i)},
		{Name: "job", Value: namespace + "/" + job},
		{Name: "namespace", Value: namespace},
		{Name: "node", Value: fmt.Sprintf("ip-10-32-%d-%d.eu-west-1.compute.internal", random>>32&7, random>>40&15)},
		{Name: "pod", Value: job + "-" + randomHex(random%7, 5) + "-" + randomHex(random+4, 3)},
		{Name: "service", Value: job + "-headless"},
	}
}

// series joins the target's labels and a series' own. The target's win, as in a
// scrape.
func (n targetName) series(own labels.Labels) labels.Labels {
	builder := labels.NewBuilder(own)
	for _, l := range n {
		builder.Set(l.Name, l.Value)
	}
	return builder.Labels()
}

// randomHex is so many random bytes in hexadecimal.
func randomHex(seed uint64, count int) string {
	var bytes []byte
	for ; len(bytes) < count; seed = mix(seed) {
		bytes = binary.BigEndian.AppendUint64(bytes, mix(seed))
	}
	return hex.EncodeToString(bytes[:count])
}
