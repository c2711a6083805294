#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clusters of two users on one node, by root's wispd and a part that pretends its VMs: who may do
# what, networks, control groups, records, and kill -9 of everything at every step. Alone:
# tests/run node-cluster
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "needs root: parts become users"

mkdir "$TMP/libexec" "$TMP/state"
chmod 711 "$TMP" "$TMP/state"
cp "$WISP_BUILD/tests/part-stand-in" "$TMP/libexec/wisp-part"
cp "$WISP_BUILD/src/vms/wisp-keeper" "$WISP_BUILD/src/node/wisp-node-helper" "$TMP/libexec"
export WISP_LIBEXECDIR="$TMP/libexec"

cgroups=none
for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do
	if [ -w "$dir/cgroup.procs" ]; then cgroups=$dir; fi
done
[ "$cgroups" != none ] || echo "no control groups of version 2 here: without them"
at_exit 'for net in "$TMP"/state/net/*; do if [ -e "$net" ]; then umount "$net"; fi; done'
at_failure=logs
logs() {
	tail -n 40 "$TMP/log" "$TMP"/state/user/*/*.log 2>/dev/null
}
python3 "$(dirname "$0")/node-cluster.py" "$WISP_BUILD/src/node/wispd" "$TMP/state" "$cgroups"
