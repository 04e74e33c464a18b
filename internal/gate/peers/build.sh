#!/bin/sh
# Builds the servers that Debian 12 lacks and the tests compare with, from the Go
# module proxy: Prometheus 3.x for the differential gate and InfluxDB 1.8 for
# /api/v2/write. Prints the path of Prometheus on the last line.
#
# The results stay in the user's cache directory, so that each is built once a
# machine: about ten CPU minutes. PEERS_DIR overrides the directory.
set -eu

# The module version of Prometheus, and the release that it is.
module_version=v0.315.0
release=3.15.0
influxdb=1.8.10
telegraf=1.37.2

dir=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/varve-peers}
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

# begin makes a module of its own to build in, with the go.mod from standard input.
begin() {
	mkdir -p "$dir"
	work=$(mktemp -d "$dir/build.XXXXXX")
	cd "$work"
	cat >go.mod
	echo "building $1 in $work, this takes minutes" >&2
}

# end gives the program its name. Renaming last means that a build which was
# interrupted leaves nothing that looks finished.
end() {
	mv program "$1"
	rm -rf "$work"
	work=
}

if [ ! -x "$dir/influxd-$influxdb" ]; then
	begin "InfluxDB $influxdb" <<MOD
module peers
go 1.26.0
require github.com/influxdata/influxdb v$influxdb
MOD
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -o program github.com/influxdata/influxdb/cmd/influxd
	end "$dir/influxd-$influxdb"
fi

if [ ! -x "$dir/telegraf-$telegraf" ]; then
	begin "Telegraf $telegraf" <<MOD
module peers
go 1.26.0
require github.com/influxdata/telegraf v$telegraf
MOD
	# Of its hundreds of plugins those that the tests use.
	tags=custom
	for plugin in inputs.prometheus inputs.cpu inputs.mem inputs.file outputs.influxdb outputs.influxdb_v2 outputs.opentsdb \
		parsers.influx parsers.prometheus serializers.influx; do
		tags=$tags,$plugin
	done
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -tags "$tags" -o program github.com/influxdata/telegraf/cmd/telegraf
	end "$dir/telegraf-$telegraf"
fi

if [ ! -x "$dir/prometheus-$release" ]; then
	# Without the replacement the module graph holds two modules that both offer
	# the same package of cloud.google.com/go, and the build stops.
	begin "Prometheus $release" <<MOD
module peers
go 1.26.0
require github.com/prometheus/prometheus $module_version
replace cloud.google.com/go => cloud.google.com/go v0.123.0
MOD
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build \
		-ldflags "-X github.com/prometheus/common/version.Version=$release" \
		-o program github.com/prometheus/prometheus/cmd/prometheus
	end "$dir/prometheus-$release"
fi
echo "$dir/prometheus-$release"
