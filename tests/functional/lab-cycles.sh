#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Up and down again and again leaves nothing: no process, namespace, file, mount or device.
# $WISP_LAB_ROUNDS rounds (default 10). Alone: tests/run lab-cycles
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab-lib.sh"

# Network and PID namespaces that some process is in.
namespaces() {
	find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -printf '%l\n' \
		-o -path '/proc/[0-9]*/ns/pid' -printf '%l\n' 2>/dev/null | sort -u | wc -l
}
devices() {
	cut -d: -f1 /proc/net/dev | sort
}
expect_devices=$(devices)
rounds=${WISP_LAB_ROUNDS:-10}
cache=${WISP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wisp}

i=0
while [ $i -lt "$rounds" ]; do
	i=$((i + 1))
	lab up --memory 1G 2>"$TMP/log" || fail "round $i: up: $(cat "$TMP/log")"
	lab exec node1 true || fail "round $i: exec"
	lab down 2>/dev/null || fail "round $i: down"
	expect_nothing_left "round $i"
	expect "round $i: devices" "$(devices)" "$expect_devices"
	if [ $i = 1 ]; then
		files=$(ls -A "$cache/kernel")
		open=$(namespaces)
	fi
done
expect "files in the cache" "$(ls -A "$cache/kernel")" "$files"
now=$(namespaces)
# Other tests have some of their own; what leaked would be one in each round.
[ "$now" -lt $((open + rounds)) ] || fail "namespaces: $open before, $now after"
echo "$rounds rounds"
