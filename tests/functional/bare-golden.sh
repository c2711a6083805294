#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VM that version 1 of the saved state was written of goes on: tests/golden/vmstate-1 has a
# checkpoint of a bare guest that counts in its memory for each vendor of CPUs. They are never
# written again. With a folder as argument this makes such a one instead.
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH
golden=$TMP/golden
truncate -s 1M "$TMP/disk"

# machine OPTION...: the devices that the golden one has.
machine() {
	wisp-vmm --control "$CONTROL" -m 16 -c 2 --cpu-model x86-64-v2 \
		--device "block,path=$TMP/disk,readonly" --device rng \
		--device "vsock,cid=3,path=$TMP/vsock" --device "console,file=$TMP/console" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null &
	vm=$!
	wait_for "the control socket" [ -S "$CONTROL" ]
}
rounds() {
	tr -cd . <"$TMP/out" | wc -c
}

if [ $# -gt 0 ]; then
	machine -k "$GUEST" -a work=65536
	wait_for "some rounds" test -s "$TMP/out"
	wisp-mover checkpoint --control "$CONTROL" --dir "$1" --compress zstd
	exit 0
fi

case $(grep -m 1 '^vendor_id' /proc/cpuinfo) in
*AuthenticAMD) vendor=amd ;;
*) vendor=intel ;;
esac
# A restore notes beside the epoch that it was made.
cp -r "$TOP/tests/golden/vmstate-1/guest-$vendor" "$golden"
wisp checkpoint verify "$golden" >/dev/null
machine --incoming
if ! wisp-mover restore --control "$CONTROL" --dir "$golden" >/dev/null 2>"$TMP/said"; then
	cat "$TMP/said"
	# State is bound to what the CPU is; anything else that is refused is a mistake of ours.
	if grep -Eq "TSC|feature|MSR|another vendor" "$TMP/said"; then
		skip "this machine's CPU cannot run what the golden one ran"
	fi
	fail "version 1 is not restored"
fi
first=$(rounds)
more() {
	[ "$(rounds)" -gt $((first + 2)) ]
}
wait_for "more rounds" more
if grep -q lost "$TMP/out"; then
	fail "its memory is not what it was: $(cat "$TMP/out")"
fi
