# SPDX-License-Identifier: Apache-2.0
# For tests with the bare guest (tests/bare/guest.c): . "$(dirname "$0")/bare-lib.sh"
. "$(dirname "$0")/lib.sh"

GUEST=$WISP_BUILD/tests/bare/guest.elf
CONTROL=$TMP/control
vm=
at_exit '[ -z "$vm" ] || kill -9 "$vm" 2>/dev/null'

[ -f "$GUEST" ] || fail "$GUEST is not built"
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	skip "needs /dev/kvm, which is missing or not for this user"
fi

# run WORDS [OPTION...]: the guest does WORDS; $TMP/out, $TMP/err and $rc are what came of it.
run() {
	run_words=$1
	shift
	rc=0
	timeout 60 wisp-vmm -k "$GUEST" -a "$run_words" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null || rc=$?
}

# The same in the background, with a control socket; $vm is its process.
start() {
	start_words=$1
	shift
	wisp-vmm -k "$GUEST" -a "$start_words" --control "$CONTROL" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null &
	vm=$!
	wait_for "the control socket" [ -S "$CONTROL" ]
}

# wait_for WHAT COMMAND...: until it succeeds, 20 s at most.
wait_for() {
	wait_what=$1 wait_tries=0
	shift
	until "$@"; do
		wait_tries=$((wait_tries + 1))
		if [ "$wait_tries" -gt 400 ]; then
			cat "$TMP/err" >&2
			fail "$wait_what: not within 20 s"
		fi
		sleep 0.05
	done
}

# ended CODE: waits for the end of $vm and checks its exit code.
ended() {
	ended_rc=0
	wait "$vm" || ended_rc=$?
	vm=
	[ "$ended_rc" = "$1" ] || {
		cat "$TMP/err" >&2
		fail "exit code $ended_rc, not $1"
	}
}

# ask COMMAND [KEY...]: a request on the control socket; prints the member of its result.
ask() {
	"$TOP/tests/functional/bare-ask.py" "$CONTROL" "$@"
}

# The machine has that many MiB to give away.
available() {
	[ "$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)" -gt "$1" ]
}

# change_pool POOL COUNT: so many more (or fewer) huge pages are set aside; prints how many it were.
change_pool() {
	flock "$1" sh -c '
		before=$(cat "$0")
		echo $((before + $1)) >"$0"
		echo $(($(cat "$0") - before))' "$1" "$2"
}

# huge_pages COUNT [KIB]: sets pages of 2 MiB (or that size) aside until the end of the test, as far
# as there are any.
huge_pages() {
	huge_pool=/sys/kernel/mm/hugepages/hugepages-${2:-2048}kB/nr_hugepages
	[ -w "$huge_pool" ] || return 0
	huge_got=$(change_pool "$huge_pool" "$1")
	at_exit "change_pool $huge_pool -$huge_got >/dev/null"
}
