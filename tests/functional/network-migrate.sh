#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp vm migrate NAME NODE with bare guests: there and back, what keeps it from moving, and what
# is interrupted leaves it where it was and nothing at the other node.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/network-lib.sh"
cat >"$TMP/launcher" <<EOF
#!/bin/sh
node=\$1
shift
exec env WISP_RUN=$TMP/\$node nsenter --net=/run/netns/$SPACE-\$node "\$@"
EOF
chmod +x "$TMP/launcher"
WISP_LAUNCHER=$TMP/launcher
export WISP_LAUNCHER
# to FROM TO [OPTION...]: a moves from the one to the other
to() {
	to_from=$1 to_to=$2
	shift 2
	on "$to_from" wisp vm migrate a "$to_to" --host "192.168.51.${to_to#n}" "$@"
}
stays() {
	expect "place" "$(place n1)" a
	goes_on n1
	nothing n2
	sleep 0.2
	expect "links" "$(field n1 default nodes)" "${1:-}"
	[ ! -e "$TMP/n1/vm/a/send.token" ] || fail "the token is left"
}

add_node n1 192.168.51.1
add_node n2 192.168.51.2
add_node n3 192.168.51.3
on n1 wisp vm start a --image minimal --kernel "$GUEST" --force --no-wait --memory 256M \
	--cmdline-add "fill=4096 work=262144" >/dev/null
id=$(field n1 default id)

echo "obstacles"
refuse 2 "--token and --again are for an address" to n1 n2 --again
refuse 1 "no address of node nowhere" on n1 wisp vm migrate a nowhere
refuse 1 "is not the name of a node" on n1 wisp vm migrate a 'x;y' --host 192.168.51.2
refuse 1 "cannot run wisp there" to n1 n2 --remote-wisp /nowhere/wisp
refuse 1 "ended with exit code 9" to n1 n2 --launcher "sh -c exit\${IFS}9"
refuse 1 "cannot listen at 192.168.51.9" on n1 wisp vm migrate a n2 --host 192.168.51.9
start n3 z
refuse 1 "node n3: network default exists here and is another one" to n1 n3
expect "untouched" "$(place n3)" z
on n3 wisp vm stop z --kill >/dev/null
on n3 wisp vm start a --image minimal --kernel "$GUEST" --force --no-wait --net other \
	--cmdline-add spin --memory 64M >/dev/null
refuse 1 "node n3: VM a runs already" to n1 n3
expect "untouched" "$(place n3)" a
on n3 wisp vm stop a --kill >/dev/null
stays

echo "a dry run"
to n1 n2 --dry-run
stays

echo "interrupted, by the user and by the death of any process there is"
# begin: a slow migration, at the point where its memory is sent; $migration is the process
begin() {
	WISP_RUN=$TMP/n1 ip netns exec "$SPACE-n1" wisp vm migrate a n2 --host 192.168.51.2 \
		--bandwidth 20M --timeout 3000 >"$TMP/out" 2>&1 &
	migration=$!
	for i in $(seq 300); do
		[ -z "$(mover n1 send)" ] || [ -z "$(mover n2 receive)" ] || break
		sleep 0.02
	done
	sleep 0.5
	kill -0 $migration || fail "it has ended: $(cat "$TMP/out")"
}
# ended CODE
ended() {
	rc=0
	wait $migration || rc=$?
	[ "$rc" = "$1" ] || { cat "$TMP/out" >&2 && fail "exit code $rc, not $1"; }
}
for signal in TERM HUP; do
	begin
	kill -$signal $migration
	ended 130
	stays
done
for victim in send receive; do
	begin
	case $victim in
	send) kill -KILL "$(mover n1 send)" ;;
	receive) kill -KILL "$(mover n2 receive)" ;;
	esac
	rc=0
	wait $migration || rc=$?
	[ "$rc" != 0 ] || fail "no wisp-mover, and yet it moved"
	stays
done
# taken_back: the keepers do, a second after
taken_back() {
	for i in $(seq 50); do
		[ -e "$TMP/n1/vm/a/send.token" ] || break
		sleep 0.1
	done
	stays
}
begin
kill -KILL $migration
ended 137
taken_back
begin
kill -KILL "$(command_of n2 "vm receive")"
rc=0
wait $migration || rc=$?
[ "$rc" != 0 ] || fail "nobody received, and yet it moved"
taken_back
begin
kill -KILL "$(command_of n2 "vm receive")"
wait $migration || :
to n1 n2 --dry-run # at once: the machine that is left there is ended first
stays
grep -q "what was begun is taken back" "$TMP/n1/net/default/log" || fail "not by the keeper"

echo "there and back"
to n1 n2 --rounds 20 >"$TMP/out" 2>&1 || fail "$(cat "$TMP/out")"
expect "reports" "$(grep -c "^moved" "$TMP/out")" 1
grep -q "a: runs on n2 at 10.78.0.2" "$TMP/out" || fail "no report"
nothing n1
expect "place" "$(place n2)" a
goes_on n2
expect "identity" "$(field n2 default id)" "$id"
expect "nodes" "$(field n2 default nodes)" "192.168.51.2 192.168.51.1"
start n2 b
# hosts NODE: the VMs known there, those of other nodes in brackets
hosts() {
	on "$1" wisp network show default --json | python3 -c '
import json, sys
print(*sorted(v["name"] if v["here"] else "(" + v["name"] + ")" for v in json.load(sys.stdin)["vms"]))' 2>/dev/null ||
		echo none
}
expect "hosts" "$(hosts n2)" "a b"
echo "back before its memory, and each wisp-mover killed meanwhile"
to n2 n1 --postcopy --bandwidth 60M --timeout 3000 >"$TMP/out" 2>&1 &
migration=$!
for victim in "n2 send" "n1 receive" "n2 send"; do
	for i in $(seq 300); do
		! grep -qs '"running"' "$TMP/n1/vm/a/receive.record" || break
		sleep 0.02
	done
	killed=$(mover ${victim})
	kill -KILL ${killed:-none} || fail "it has ended: $(cat "$TMP/out")"
	sleep 0.3
done
wait $migration || fail "it did not come: $(cat "$TMP/out")"
grep -q "wisp vm migrate: wisp-mover was killed, another one goes on" "$TMP/out" ||
	fail "$(cat "$TMP/out")"
expect "place" "$(place n2)" b
goes_on n1
expect "nodes" "$(field n1 default nodes)" "192.168.51.1 192.168.51.2"
expect "hosts of n1" "$(hosts n1)" "(b) a"
expect "hosts of n2" "$(hosts n2)" "(a) b"
start n1 c
grep -q '"address": "10.78.0.4"' "$TMP/n1/vm/c/vm.json" || fail "c has an address of another node"
refuse 1 "address 10.78.0.2 belongs to VM a on another node" on n2 wisp vm start d --image minimal \
	--kernel "$GUEST" --force --no-wait --address 10.78.0.2
on n1 wisp vm stop c --kill >/dev/null
on n2 wisp vm stop --all --kill >/dev/null

echo "from a checkpoint: what is interrupted before it is there leaves nothing"
on n1 wisp vm suspend a "$TMP/saved" >/dev/null
nothing n1
for signal in KILL TERM HUP; do
	LD_PRELOAD=$WISP_BUILD/tests/broken-disk.so BROKEN_CALL=read BROKEN_PATH=/pages. \
		BROKEN_FROM=1 BROKEN_DELAY=2000 WISP_RUN=$TMP/n3 ip netns exec "$SPACE-n3" \
		wisp vm restore "$TMP/saved" >"$TMP/out" 2>&1 &
	migration=$!
	for i in $(seq 100); do
		[ -z "$(mover n3 restore)" ] || break
		sleep 0.05
	done
	expect "place" "$(place n3)" a
	kill -$signal $migration
	[ $signal = KILL ] && ended 137 || ended 130
	nothing n3
done

echo "lazily: wisp-mover killed, or the command; linked again"
restore() {
	WISP_RUN=$TMP/n3 ip netns exec "$SPACE-n3" wisp vm restore "$TMP/saved" --lazy \
		>/dev/null 2>"$TMP/err" & # its agent never comes
	restore=$!
}
restore
for i in $(seq 100); do
	killed=$(mover n3 restore)
	[ -z "$killed" ] || break
done
kill -KILL ${killed:-none} || fail "nobody restores: $(cat "$TMP/err")"
for i in $(seq 100); do
	[ "$(rounds n3)" = 0 ] || break
	kill -0 $restore 2>/dev/null || break
	sleep 0.1
done
# Killed before there was anything to go on with: it fails, and the next does not.
if ! kill -0 $restore 2>/dev/null; then
	echo "it failed: $(cat "$TMP/err")"
	nothing n3
	restore
	for i in $(seq 100); do
		[ "$(rounds n3)" = 0 ] || break
		sleep 0.1
	done
fi
goes_on n3
kill $restore
wait $restore || :
goes_on n3
expect "nodes" "$(field n3 default nodes)" "192.168.51.3 192.168.51.1 192.168.51.2"
expect "identity" "$(field n3 default id)" "$id"

echo "the keeper dies where it comes from: its record does not"
to n3 n1 --postcopy --bandwidth 60M --timeout 3000 >"$TMP/out" 2>&1 &
migration=$!
for i in $(seq 300); do
	! grep -qs '"running"' "$TMP/n1/vm/a/receive.record" || break
	sleep 0.02
done
kill -KILL "$(keeper n3)"
for i in $(seq 100); do
	[ -e "$TMP/n3/vm/a/control.busy" ] || fail "it has ended: $(cat "$TMP/out")"
	on n3 wisp vm list | grep -q lost && break
done
[ -e "$TMP/n3/vm/a/send.record" ] || fail "the record is gone"
refuse 1 "a is being handed over to another place" start n3 a
wait $migration || fail "it did not come: $(cat "$TMP/out")"
goes_on n1
nothing n3

echo "what is not settled is told, and forgotten only by who says so"
mkdir -p "$TMP/n3/vm/a"
echo '{"state": "prepared"}' >"$TMP/n3/vm/a/receive.record"
on n3 wisp vm list | grep -q "wisp vm receive --again a" || fail "list does not tell"
refuse 1 "may run where it comes from" start n3 a
refuse 1 "may run where it comes from" on n3 wisp vm stop a
on n3 wisp vm stop a --kill >/dev/null
nothing n3
