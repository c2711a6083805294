#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a real kernel holds clusters to: wispd, with parts that pretend their VMs, in an emulated
# node of three CPUs whose control groups nobody else uses. Alone: tests/run node-limits
. "$(dirname "$0")/lib.sh"
if [ -z "${NODE_LIMITS_INSIDE:-}" ]; then
	. "$(dirname "$0")/lab-lib.sh"
	lab up --name limits --nodes 1 --cpus 3 --memory 1G
	lab exec --name limits node1 -- env NODE_LIMITS_INSIDE=1 TMPDIR=/tmp "WISP_BUILD=$WISP_BUILD" "$0"
	lab down --name limits
	expect_nothing_left "after down"
	exit 0
fi

mkdir "$TMP/libexec" "$TMP/state"
chmod 711 "$TMP" "$TMP/state"
cp "$WISP_BUILD/tests/part-stand-in" "$TMP/libexec/wisp-part"
cp "$WISP_BUILD/src/vms/wisp-keeper" "$WISP_BUILD/src/node/wisp-node-helper" "$TMP/libexec"
export WISP_LIBEXECDIR="$TMP/libexec"
at_failure=logs
logs() {
	tail -n 40 "$TMP/log" "$TMP"/state/user/*/*.log 2>/dev/null
}
python3 "$(dirname "$0")/node-limits.py" "$WISP_BUILD/src/node/wispd" "$TMP/state"
