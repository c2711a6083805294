#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles an ASL file into a C header: dsdt.sh IASL INPUT OUTPUT
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1" -p "$dir/dsdt" -tc "$2" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
# Without the comments: they hold the time of the build.
sed -e '/^\/\*/,/\*\//d' -e 's/^unsigned char/static const unsigned char/' "$dir/dsdt.hex" >"$3"
