#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Nodes fetch an image that they lack from others that have it, or are about to: wispd of an
# ordinary user for each node, each with images of its own, and wisp-part. Alone: tests/run node-fetch
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "needs root: to be a user that has nothing"

chmod 711 "$TMP"
mkdir "$TMP/libexec"
for program in src/part/wisp-part src/vms/wisp-keeper src/node/wisp-node-helper; do
	cp "$WISP_BUILD/$program" "$TMP/libexec"
done
export WISP_LIBEXECDIR="$TMP/libexec"
at_failure=logs
logs() {
	tail -n 20 "$TMP"/*.log "$TMP"/run*/*.log 2>/dev/null
}
PYTHONPATH=$(dirname "$0") PYTHONDONTWRITEBYTECODE=1 timeout 100 python3 "$(dirname "$0")/node-fetch.py" "$WISP_BUILD" "$TMP"
