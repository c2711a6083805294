#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A Linux guest that works with its disk, network, random numbers and console goes on in another
# VMM: nothing is lost, its clock is what was asked for. Alone: tests/run guest-save
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest-lib.sh"
inside "$0"

image=${WISP_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/wisp}/images/minimal
[ -f "$image/root.squashfs" ] || fail "no image in $image"
at_exit 'ip link del wisp-save 2>/dev/null; ip link del tap1 2>/dev/null; ip link del tap2 2>/dev/null'
ip link add wisp-save type bridge
ip address add 10.99.0.1/24 dev wisp-save
ip link set wisp-save up
for tap in tap1 tap2; do
	ip tuntap add $tap mode tap
	ip link set $tap master wisp-save up
done
for mode in "kernel frozen auto" "split elapsed off"; do
	echo "irqchip, clock, vhost: $mode"
	rm -f "$TMP/disk"
	truncate -s 64M "$TMP/disk"
	# shellcheck disable=SC2086
	python3 "$TOP/tests/functional/guest-save.py" "$image" "$TMP" $mode || fail "$mode"
done
