#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VM that works moves to another place and back, by name; what goes wrong leaves it where it is. A
# task in it (wisp vm exec --keep) goes on, also from a checkpoint, and none of its output is lost or doubled.
# The two places are two users' worth of state (WISP_RUN) on one machine.
# Alone: tests/run vm-migrate
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"
here=$TMP/run there=$TMP/there
at_exit "WISP_RUN='$there' wisp vm stop --all --kill >/dev/null 2>&1"
at() {
	at_run=$1
	shift
	WISP_RUN=$at_run "$@"
}
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$TMP/token"
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$TMP/other"

# receive PLACE DESCRIPTION: listens in the background; $receiver is the process.
receive() {
	rm -f "$TMP/socket"
	cp "$2" "$TMP/description"
	WISP_RUN=$1 wisp vm receive --listen "unix:$TMP/socket" --token "$TMP/token" \
		--timeout 60000 <"$TMP/description" >"$TMP/received" 2>&1 &
	receiver=$!
	wait_for 60 [ -S "$TMP/socket" ] || fail "nobody listens: $(cat "$TMP/received")"
}
received() {
	received_rc=0
	wait "$receiver" || received_rc=$?
	[ "$received_rc" = "$1" ] || fail "receive: exit code $received_rc: $(cat "$TMP/received")"
}

refuse 2 "give --token FILE" wisp vm migrate a "unix:$TMP/socket"
refuse 1 "there is no VM a" wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token"
echo '{}' >"$TMP/none"
rc=0
wisp vm receive --listen "unix:$TMP/x" --token "$TMP/token" <"$TMP/none" 2>"$TMP/err" || rc=$?
expect "no description" "$rc" 1

wisp vm start a --image minimal --memory 256M --cpus 2
wisp vm exec a -- sh -c '
	head -c 12M /dev/urandom >/tmp/data
	sha256sum /tmp/data >/tmp/sum
	perl -e "$1" >/dev/null 2>&1 &
	until [ -s /tmp/count ]; do sleep 0.1; done' sh "$COUNTS"
counts_beyond() {
	count=$(at "$1" wisp vm exec a cat /tmp/count)
	[ "$count" -gt "$2" ]
}
# goes_on PLACE: it counts on from $count, and its memory is right.
goes_on() {
	first=$(at "$1" wisp vm exec a cat /tmp/count)
	[ "$first" -ge "$count" ] || fail "the count went back: $first after $count"
	wait_for 20 counts_beyond "$1" "$first"
	at "$1" wisp vm exec a -- sha256sum -c /tmp/sum >/dev/null || fail "memory has changed"
}
count=0
goes_on "$here"

echo "a task, and somebody who writes down what it writes, wherever it is"
wisp vm exec --keep counter --detach a -- perl -e '$| = 1;
	for ($i = 1; ! -e "/tmp/enough"; $i++) {
		print "$i\n";
		select(undef, undef, undef, 0.05);
	}
	exit 5'
refuse 126 "task counter exists already: it runs as process" wisp vm exec --keep counter a true
# follow [afresh]: in the background; its exit code is the task's.
follow() {
	(
		while :; do
			for follow_place in "$here" "$there"; do
				rc=0
				"$WISP_BUILD/tests/agent-client" "vsock:$follow_place/vm/a/vsock" task \
					counter "$TMP/counted" "$@" >>"$TMP/follow" 2>&1 || rc=$?
				[ "$rc" = 255 ] || exit "$rc"
			done
			sleep 0.2
		done
	) &
	follower=$!
}
# counted LINES: what was written down is every number once, so many at least.
counted() {
	tries=0
	until lines=$(wc -l <"$TMP/counted") && [ "$lines" -ge "$1" ]; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || fail "$lines lines of the task, not $1: $(tail -n 5 "$TMP/follow")"
		sleep 0.2
	done
	seq "$lines" >"$TMP/wanted"
	head -n "$lines" "$TMP/counted" | cmp - "$TMP/wanted" || fail "its output is not whole"
}
at_exit 'kill $follower 2>/dev/null || :'
follow
counted 1

echo "a wrong token changes nothing"
receive "$there" "$here/vm/a/vm.json"
rc=0
wisp vm migrate a "unix:$TMP/socket" --token "$TMP/other" --timeout 3000 2>"$TMP/err" || rc=$?
[ "$rc" = 1 ] || fail "migrate with a wrong token: $rc: $(cat "$TMP/err")"
goes_on "$here"

echo "a dry run moves nothing"
wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token" --dry-run ||
	fail "there are obstacles: $(cat "$TMP/received")"
kill "$receiver" 2>/dev/null || :
wait "$receiver" || :
goes_on "$here"

echo "the record of a hand-over that is not settled stays, and nothing begins"
echo '{}' >"$here/vm/a/send.record"
refuse 1 "--token FILE --again" wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token"
[ -f "$here/vm/a/send.record" ] || fail "the record is gone"
wisp vm pause a
refuse 1 "may run there" wisp vm resume a
rm "$here/vm/a/send.record"
wisp vm resume a

echo "one operation at a time, and it can be cancelled"
refuse 1 "no operation runs" wisp vm cancel a
at "$there" wisp vm stop --all --kill >/dev/null 2>&1 || :
receive "$there" "$here/vm/a/vm.json"
wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token" --bandwidth 1M \
	--timeout 30000 >"$TMP/sent" 2>&1 &
sender=$!
wait_for 60 [ -f "$here/vm/a/control.busy" ] || fail "it does not begin: $(cat "$TMP/sent")"
refuse 1 "another operation on this VM runs: send" wisp vm checkpoint a "$TMP/ck"
wisp vm list | grep -q "wisp vm cancel a ends it" || fail "the list: $(wisp vm list)"
wisp vm cancel a
rc=0
wait $sender || rc=$?
[ "$rc" = 130 ] || fail "a cancelled migration: $rc: $(cat "$TMP/sent")"
received 1
goes_on "$here"

echo "there"
at "$there" wisp vm stop --all --kill >/dev/null 2>&1 || :
receive "$there" "$here/vm/a/vm.json"
wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token" --timeout 30000 --json >"$TMP/report"
python3 -m json.tool "$TMP/report"
received 0
expect "here" "$(wisp vm list --names)" ""
expect "there" "$(at "$there" wisp vm list --names)" a
goes_on "$there"
moved=$lines
counted $((moved + 1))

echo "a sender that is killed leaves it where it is"
receive "$here" "$there/vm/a/vm.json"
WISP_RUN=$there wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token" --bandwidth 8M \
	--progress json >"$TMP/sent" 2>&1 &
sender=$!
wait_for 60 grep -q '"phase":"copy"' "$TMP/sent" || fail "it does not begin: $(cat "$TMP/sent")"
kill -KILL $sender 2>/dev/null || cat "$TMP/sent"
wait $sender || :
received_rc=0
wait "$receiver" || received_rc=$?
if [ "$received_rc" = 0 ]; then
	echo "it was faster"
	place=$here
else
	place=$there
fi
goes_on "$place"
expect "one of them runs" "$( (at "$here" wisp vm list --json; at "$there" wisp vm list --json) |
	grep -c '"state": "running"')" 1

echo "and back, before its memory"
if [ "$place" = "$there" ]; then
	receive "$here" "$there/vm/a/vm.json"
	at "$there" wisp vm migrate a "unix:$TMP/socket" --token "$TMP/token" --timeout 30000 \
		--compress lz4 --postcopy --bandwidth 20M --json >"$TMP/report"
	grep -A3 '"missing"' "$TMP/report"
	received 0
fi
goes_on "$here"
counted $((lines + 1))

echo "it goes on from a checkpoint, where it was then"
wisp vm checkpoint a "$TMP/ck" --live
saved=$lines
sleep 2
kill $follower
wait $follower || :
wisp vm stop --kill a
wisp vm restore "$TMP/ck"
follow afresh
counted "$saved"
wisp vm tasks a | grep -Eq "^counter +running .* yes " || fail "tasks: $(wisp vm tasks a)"
wisp vm exec a touch /tmp/enough
rc=0
wait $follower || rc=$?
expect "exit code of the task" "$rc" 5
counted "$lines"
rc=0
wisp vm attach a counter >/dev/null || rc=$?
expect "exit code when attached" "$rc" 5
refuse 126 "there is no task counter" wisp vm attach a counter
wisp vm exec --keep sleeper --detach a -- sleep 1000
refuse 1 "runs" wisp vm forget a sleeper
wisp vm signal a sleeper TERM
rc=0
wisp vm attach a sleeper || rc=$?
expect "ended by SIGTERM" "$rc" 143
expect "kept and seen" "$(wisp vm exec --keep once a -- echo seen)" seen
expect "nothing is kept" "$(wisp vm tasks --json a)" "[]"
wisp vm stop a
