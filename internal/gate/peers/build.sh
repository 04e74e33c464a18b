#!/bin/sh
# Builds the Prometheus 3.x that the differential gate compares with, from the
# Go module proxy, and prints the path of the binary on the last line.
#
# The result stays in the user's cache directory, so that it is built once a
# machine: about four CPU minutes. PEERS_DIR overrides the directory.
set -eu

# The module version of Prometheus, and the release that it is.
module_version=v0.315.0
release=3.15.0

dir=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/varve-peers}
bin=$dir/prometheus-$release
if [ -x "$bin" ]; then
	echo "$bin"
	exit 0
fi

mkdir -p "$dir"
work=$(mktemp -d "$dir/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
# Without the replacement the module graph holds two modules that both offer
# the same package of cloud.google.com/go, and the build stops.
cat >go.mod <<MOD
module peers
go 1.26.0
require github.com/prometheus/prometheus $module_version
replace cloud.google.com/go => cloud.google.com/go v0.123.0
MOD
echo "building Prometheus $release in $work, this takes minutes" >&2
GOFLAGS=-mod=mod GOWORK=off nice -n 19 go build \
	-ldflags "-X github.com/prometheus/common/version.Version=$release" \
	-o prometheus github.com/prometheus/prometheus/cmd/prometheus
# Renaming last means that a build which was interrupted leaves nothing that
# looks finished.
mv prometheus "$bin"
echo "$bin"
