package dataset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// HostSeries is the number of series of one host.
const HostSeries = 1000

// ClusterName is the value of the label cluster of the hosts of cluster n.
func ClusterName(n int) string { return fmt.Sprintf("prod-eu-west-%03d", n) }

const (
	targetNode = iota
	targetApp
)

// template is a series of a host, but for the labels that say which host.
type template struct {
	name   string
	labels [][2]string
	target int
	shape  shape
}

// hostTemplate lists the series of any host, in the order of its scrapes.
var hostTemplate = makeHostTemplate()

var appNames = [...]string{"checkout", "catalogue", "payments", "search", "sessions", "shipping", "invoices", "gateway"}

// labelsOn are all labels of the series on a host, sorted by name.
func (t *template) labelsOn(host, hostsPerCluster int) [][2]string {
	address := fmt.Sprintf("10.%d.%d.%d", 16+host>>16, host>>8&0xff, host&0xff)
	pairs := [][2]string{
		{"__name__", t.name},
		{"cluster", ClusterName(host / hostsPerCluster)},
	}
	if t.target == targetNode {
		pairs = append(pairs, [2]string{"instance", address + ":9100"}, [2]string{"job", "node-exporter"},
			[2]string{"environment", "production"})
	} else {
		app := appNames[host%len(appNames)]
		pod := strconv.FormatUint(mix(uint64(host))>>24, 36)
		pairs = append(pairs, [2]string{"instance", address + ":8080"}, [2]string{"job", app},
			[2]string{"pod", app + "-" + pod[:5] + "-" + pod[len(pod)-5:]})
	}
	for _, pair := range t.labels {
		value := strings.ReplaceAll(pair[1], "$host", fmt.Sprintf("ip-10-%d-%d-%d", 16+host>>16, host>>8&0xff, host&0xff))
		pairs = append(pairs, [2]string{pair[0], value})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return pairs
}

// roster gathers templates; each method adds one metric with all its series.
type roster struct {
	list      []template
	target    int
	histogram uint64
}

// add adds one series for each label set, all of one shape.
func (r *roster) add(s shape, name string, sets ...[][2]string) {
	if len(sets) == 0 {
		sets = [][][2]string{nil}
	}
	for _, set := range sets {
		r.list = append(r.list, template{name: name, labels: set, target: r.target, shape: s})
	}
}

// addHistogram adds the classic histogram of each label set: its buckets, which
// share their observations, its sum and its count.
func (r *roster) addHistogram(mean int64, name string, bounds []string, sets ...[][2]string) {
	for _, set := range sets {
		r.histogram++
		for k, bound := range bounds {
			share := float64(k+1) / float64(len(bounds))
			s := shape{kind: kindBucket, mean: mean, scale: share * (2 - share), group: r.histogram}
			r.add(s, name+"_bucket", append(slices.Clone(set), [2]string{"le", bound}))
		}
		r.add(shape{kind: kindSum, mean: mean, scale: 0.0347, group: r.histogram}, name+"_sum", set)
		r.add(shape{kind: kindBucket, mean: mean, scale: 1, group: r.histogram}, name+"_count", set)
	}
}

// product is every combination of the values of two labels; the second may be
// left out.
func product(name1 string, values1 []string, name2 string, values2 []string) [][][2]string {
	var sets [][][2]string
	for _, v1 := range values1 {
		if len(values2) == 0 {
			sets = append(sets, [][2]string{{name1, v1}})
		}
		for _, v2 := range values2 {
			sets = append(sets, [][2]string{{name1, v1}, {name2, v2}})
		}
	}
	return sets
}

// numbers are the decimal numbers from 0 below n.
func numbers(n int) []string {
	var list []string
	for i := range n {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

func makeHostTemplate() []template {
	r := &roster{}
	r.target = targetNode
	r.addMachine()
	r.addKernel()
	r.target = targetApp
	r.addRequests()
	r.addRuntime()
	// Enough calls to backing services to reach the round number.
	for i := 0; len(r.list) < HostSeries; i++ {
		set := [][2]string{{"method", "Call" + strconv.Itoa(i%40)}, {"service", "orders.v1.Backend" + strconv.Itoa(i/40)}}
		r.add(shape{kind: kindCounter, mean: 20}, "grpc_client_handled_total", set)
	}
	return r.list[:HostSeries]
}

// addMachine adds processors, memory, disks, file systems and networks.
func (r *roster) addMachine() {
	cpus := numbers(8)
	r.add(shape{kind: kindCentis, mean: 180}, "node_cpu_seconds_total", product("cpu", cpus, "mode",
		[]string{"idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"})...)
	for _, name := range []string{"running", "waiting"} {
		r.add(shape{kind: kindNanos, mean: 900_000_000}, "node_schedstat_"+name+"_seconds_total", product("cpu", cpus, "", nil)...)
	}
	r.add(shape{kind: kindCounter, mean: 4000}, "node_schedstat_timeslices_total", product("cpu", cpus, "", nil)...)
	r.add(shape{kind: kindCounter, mean: 3000}, "node_softnet_processed_total", product("cpu", cpus, "", nil)...)
	r.add(shape{kind: kindConst}, "node_softnet_dropped_total", product("cpu", cpus, "", nil)...)
	for _, field := range []string{"MemTotal", "SwapTotal", "Hugepagesize", "VmallocTotal", "CommitLimit"} {
		r.add(shape{kind: kindConst, mean: 16 << 30}, "node_memory_"+field+"_bytes")
	}
	for _, field := range []string{"Active", "Active_anon", "Active_file", "AnonPages", "Buffers", "Cached", "Committed_AS", "Dirty", "Inactive",
		"Inactive_anon", "Inactive_file", "KernelStack", "Mapped", "MemAvailable", "MemFree", "PageTables", "SReclaimable", "SUnreclaim",
		"Shmem", "Slab", "SwapCached", "SwapFree", "VmallocUsed", "Writeback"} {
		r.add(shape{kind: kindPages, mean: 4000}, "node_memory_"+field+"_bytes")
	}
	disks := product("device", []string{"nvme0n1", "nvme1n1", "dm-0"}, "", nil)
	for _, field := range []string{"reads_completed", "reads_merged", "writes_completed", "writes_merged"} {
		r.add(shape{kind: kindCounter, mean: 300}, "node_disk_"+field+"_total", disks...)
	}
	for _, field := range []string{"read", "written"} {
		r.add(shape{kind: kindPages, mean: 2000, rising: true}, "node_disk_"+field+"_bytes_total", disks...)
	}
	for _, field := range []string{"io_time", "read_time", "write_time", "io_time_weighted"} {
		r.add(shape{kind: kindCentis, mean: 90}, "node_disk_"+field+"_seconds_total", disks...)
	}
	var filesystems [][][2]string
	for _, mount := range []string{"/", "/boot", "/var/lib/containerd", "/var/lib/kubelet", "/run"} {
		filesystems = append(filesystems, [][2]string{{"device", "/dev/nvme0n1p" + strconv.Itoa(len(mount)%5)}, {"fstype", "ext4"}, {"mountpoint", mount}})
	}
	r.add(shape{kind: kindConst, mean: 100 << 30}, "node_filesystem_size_bytes", filesystems...)
	r.add(shape{kind: kindPages, mean: 300}, "node_filesystem_avail_bytes", filesystems...)
	r.add(shape{kind: kindPages, mean: 300}, "node_filesystem_free_bytes", filesystems...)
	r.add(shape{kind: kindGauge, mean: 30}, "node_filesystem_files_free", filesystems...)
	networks := product("device", []string{"eth0", "eth1", "lo", "cali0"}, "", nil)
	for _, way := range []string{"receive", "transmit"} {
		r.add(shape{kind: kindCounter, mean: 800_000}, "node_network_"+way+"_bytes_total", networks...)
		r.add(shape{kind: kindCounter, mean: 900}, "node_network_"+way+"_packets_total", networks...)
		for _, field := range []string{"errs", "drop", "fifo", "compressed"} {
			r.add(shape{kind: kindConst}, "node_network_"+way+"_"+field+"_total", networks...)
		}
	}
}

// addKernel adds what a node exporter says of the kernel and of itself.
func (r *roster) addKernel() {
	for _, name := range []string{"node_load1", "node_load5", "node_load15"} {
		r.add(shape{kind: kindLoad, mean: 12}, name)
	}
	r.add(shape{kind: kindConst, mean: 1}, "node_uname_info", [][2]string{{"nodename", "$host"}, {"release", "6.1.0-28-amd64"}, {"sysname", "Linux"}})
	r.add(shape{kind: kindConst, mean: 1_700_000_000}, "node_boot_time_seconds")
	r.add(shape{kind: kindClock}, "node_time_seconds")
	r.add(shape{kind: kindCounter, mean: 50_000}, "node_context_switches_total")
	r.add(shape{kind: kindCounter, mean: 30_000}, "node_intr_total")
	r.add(shape{kind: kindCounter, mean: 60}, "node_forks_total")
	for _, field := range []string{"ActiveOpens", "AttemptFails", "CurrEstab", "EstabResets", "InErrs", "InSegs", "OutRsts", "OutSegs", "PassiveOpens", "RetransSegs"} {
		r.add(shape{kind: kindCounter, mean: 700}, "node_netstat_Tcp_"+field)
	}
	for _, field := range []string{"InDatagrams", "InErrors", "NoPorts", "OutDatagrams", "RcvbufErrors", "SndbufErrors"} {
		r.add(shape{kind: kindCounter, mean: 90}, "node_netstat_Udp_"+field)
	}
	for _, field := range []string{"oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"} {
		r.add(shape{kind: kindCounter, mean: 9000}, "node_vmstat_"+field)
	}
	for _, field := range []string{"TCP_alloc", "TCP_inuse", "TCP_mem", "TCP_orphan", "TCP_tw", "UDP_inuse", "UDP_mem", "sockets_used"} {
		r.add(shape{kind: kindGauge, mean: 20}, "node_sockstat_"+field)
	}
	collectors := product("collector", []string{"cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "netstat", "sockstat", "stat", "uname"}, "", nil)
	r.add(shape{kind: kindNoise, mean: 20_000_000}, "node_scrape_collector_duration_seconds", collectors...)
	r.add(shape{kind: kindConst, mean: 1}, "node_scrape_collector_success", collectors...)
}

// addRequests adds the application's requests and their latencies.
func (r *roster) addRequests() {
	handlers := []string{"/api/v1/orders", "/api/v1/orders/{id}", "/api/v1/carts/{id}/items", "/api/v1/products", "/api/v1/products/{id}/reviews",
		"/api/v1/customers/{id}", "/api/v2/recommendations", "/healthz"}
	for i, code := range []string{"200", "204", "400", "404", "500", "503"} {
		sets := product("handler", handlers, "method", []string{"GET", "POST"})
		for k := range sets {
			sets[k] = append([][2]string{{"code", code}}, sets[k]...)
		}
		r.add(shape{kind: kindCounter, mean: 240 >> (2 * i)}, "http_requests_total", sets...)
	}
	bounds := []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"}
	r.addHistogram(200, "http_request_duration_seconds", bounds, product("handler", handlers, "method", []string{"GET", "POST"})...)
	r.add(shape{kind: kindGauge, mean: 3}, "http_requests_in_flight", product("handler", handlers, "", nil)...)
}

// addRuntime adds the Go runtime and the process of the application.
func (r *roster) addRuntime() {
	for _, field := range []string{"alloc", "heap_alloc", "heap_idle", "heap_inuse", "heap_released", "heap_sys", "stack_inuse", "sys", "mspan_inuse", "gc_sys"} {
		r.add(shape{kind: kindPages, mean: 700}, "go_memstats_"+field+"_bytes")
	}
	for _, field := range []string{"alloc_bytes", "frees", "mallocs"} {
		r.add(shape{kind: kindCounter, mean: 90_000}, "go_memstats_"+field+"_total")
	}
	r.add(shape{kind: kindGauge, mean: 8}, "go_goroutines")
	r.add(shape{kind: kindGauge, mean: 1}, "go_threads")
	r.add(shape{kind: kindConst, mean: 1}, "go_info", [][2]string{{"version", "go1.26.8"}})
	r.add(shape{kind: kindNoise, mean: 900_000}, "go_gc_duration_seconds", product("quantile", []string{"0", "0.25", "0.5", "0.75", "1"}, "", nil)...)
	r.add(shape{kind: kindCentis, mean: 300}, "process_cpu_seconds_total")
	r.add(shape{kind: kindGauge, mean: 5}, "process_open_fds")
	r.add(shape{kind: kindPages, mean: 900}, "process_resident_memory_bytes")
	r.add(shape{kind: kindConst, mean: 1_700_000_321}, "process_start_time_seconds")
	r.add(shape{kind: kindConst, mean: 1}, "up")
}
