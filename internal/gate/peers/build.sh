#!/bin/sh
# Builds the programs that Debian 12 lacks and the tests compare with, from the Go
# module proxy: Prometheus 3.x and its promtool, InfluxDB 1.8 for /api/v2/write,
# Telegraf, Thanos, and servers of object storage: versitygw (S3) and
# fake-gcs-server; from npm, where there is one, Azurite. Prints the path of
# Prometheus on the last line.
#
# The results stay in the user's cache directory, so that each is built once a
# machine: about fifteen CPU minutes. PEERS_DIR overrides the directory.
set -eu

# The module version of Prometheus, and the release that it is.
module_version=v0.315.0
release=3.15.0
influxdb=1.8.10
telegraf=1.37.2
thanos=0.42.4
versitygw=1.8.0
fakegcs=1.56.1
azurite=3.37.0

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
	cd "$dir"
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

# Thanos' own go.mod has replacements, which count in the main module alone.
if [ ! -x "$dir/thanos-$thanos" ]; then
	source=$(cd / && GOFLAGS=-mod=mod GOWORK=off go mod download -json "github.com/thanos-io/thanos@v$thanos" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	begin "Thanos $thanos" <<MOD
module peers
go 1.26.0
require github.com/thanos-io/thanos v$thanos
$(sed -n '/^replace (/,$p' "$source/go.mod")
MOD
	cp "$source/go.sum" go.sum && chmod u+w go.sum
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -tags slicelabels -o program github.com/thanos-io/thanos/cmd/thanos
	end "$dir/thanos-$thanos"
fi

if [ ! -x "$dir/versitygw-$versitygw" ]; then
	begin "versitygw $versitygw" <<MOD
module peers
go 1.26.0
require github.com/versity/versitygw v$versitygw
MOD
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -o program github.com/versity/versitygw/cmd/versitygw
	end "$dir/versitygw-$versitygw"
fi

if [ ! -x "$dir/fake-gcs-server-$fakegcs" ]; then
	begin "fake-gcs-server $fakegcs" <<MOD
module peers
go 1.26.0
require github.com/fsouza/fake-gcs-server v$fakegcs
MOD
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -o program github.com/fsouza/fake-gcs-server
	end "$dir/fake-gcs-server-$fakegcs"
fi

if [ ! -x "$dir/azurite-$azurite" ] && command -v npm >/dev/null; then
	echo "installing Azurite $azurite in $dir" >&2
	npm install --silent --no-audit --no-fund --prefix "$dir/azurite" "azurite@$azurite" >&2
	printf '#!/bin/sh\nexec node "$(dirname "$0")/azurite/node_modules/azurite/dist/src/blob/main.js" "$@"\n' >"$dir/azurite-$azurite"
	chmod +x "$dir/azurite-$azurite"
fi

if [ ! -x "$dir/promtool-$release" ]; then
	begin "promtool $release" <<MOD
module peers
go 1.26.0
require github.com/prometheus/prometheus $module_version
replace cloud.google.com/go => cloud.google.com/go v0.123.0
MOD
	GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build -o program github.com/prometheus/prometheus/cmd/promtool
	end "$dir/promtool-$release"
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
