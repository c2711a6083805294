#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp run --launcher: an ordinary user, no wispd anywhere. In place of ssh there is a script, in place
# of VMs there are processes and one agent. Alone: tests/run run-launcher
[ -n "${RUN_LAUNCHER_INSIDE:-}" ] || [ "$(id -u)" != 0 ] || RUN_LAUNCHER_INSIDE=1 exec unshare -n sh "$0"
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "must be root, to become an ordinary user"
ip link set lo up
cd "$TMP"
chmod 755 .
at_failure='cat err */launcher/*/log far/*/node/socket.log'

# -------- what is at the other node: an agent that sees another /etc, programs --------

cp -a /etc "$TMP/etc"
agent=
stop_agent() {
	[ -z "$agent" ] || kill "$agent" 2>/dev/null || :
	[ -z "$agent" ] || wait "$agent" || :
}
start_agent() {
	stop_agent
	unshare -m sh -c "mount --bind '$TMP/etc' /etc && exec '$WISP_BUILD/src/agent/wisp-agent' --listen tcp:127.0.0.1:1024,from=127.0.0.1" &
	agent=$!
}
at_exit stop_agent
start_agent
mkdir programs
cp "$WISP_BUILD/tests/part-stand-in" programs/wisp-part
cp "$WISP_BUILD/src/vms/wisp-keeper" "$WISP_BUILD/src/node/wisp-node-helper" programs/
cat >launch <<END
# As ssh: a host, and a command there.
host=\$1
shift
[ "\$host" != 127.0.0.9 ] || { echo "127.0.0.9: Permission denied (publickey)." >&2; exit 255; }
mkdir -p "$TMP/far/\$host"
echo "\$host \$*" >>"$TMP/far/calls"
export WISP_RUN="$TMP/far/\$host" WISP_HOME="$TMP/far" WISP_LIBEXECDIR="$TMP/programs" WISP_STAND_IN_AGENT=tcp:127.0.0.1:1024
exec "$WISP_BUILD/src/node/wispd" --topology "pack:1 core:2 pu:1" --grace 1 --cgroups none "\$@"
END
mkdir near far home
tiny_image home
printf 'vms: 1\nmemory: 64M\n' >one.yaml
printf 'vms: 2\nvms-per-node: 1\nmemory: 64M\n' >two.yaml
chown -R 65534:65534 near far home

# wispd of our user, wherever; they end by themselves a minute after nobody needs them.
daemons() {
	for environ in $(grep -lzF "WISP_RUN=$TMP/" /proc/[0-9]*/environ 2>/dev/null); do
		process=${environ%/environ}
		case $(cat "$process/comm" 2>/dev/null) in
		wispd) echo "${process#/proc/}" ;;
		esac
	done
}
at_exit 'for pid in $(daemons); do kill $pid 2>/dev/null || :; done; sleep 1'
as_user() {
	timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups env WISP_RUN="$TMP/near" WISP_HOME="$TMP/home" \
		WISP_CONFIG="$TMP/home" HOME="$TMP/home" wisp "$@"
}
run() {
	as_user run --image tiny --launcher "sh $TMP/launch %h" "$@"
}

# -------- a run --------

rc=0
echo text | run --nodes n1@127.0.0.2 one.yaml -- sh -c 'cat; echo bad >&2; exit 7' >out 2>err || rc=$?
expect "exit code" "$rc" 7
expect "output" "$(cat out)" text
grep -qx bad err || fail "no errors"
grep -q "^one: ready " err || fail "no stages"
grep -q "^127.0.0.2 --pipe --name n1$" far/calls || fail "called otherwise: $(cat far/calls)"
expect "clusters" "$(as_user cluster list)" ""

# The same daemon is there for the next, and for all commands.
start_agent
run -q -d --nodes n1@127.0.0.2 one.yaml -- sleep 100
expect "exec" "$(as_user cluster exec one-0 echo there)" there
as_user cluster show one | grep -q "^one-0 .* n1 .* ready" || fail "it is not at n1"
as_user cluster stop one
expect "daemons that were started here" "$(cat near/launcher/*/log | grep -c 'info: .* at .*/socket$')" 1
expect "and there" "$(grep -c 'info: n1 at .*/socket$' far/127.0.0.2/node/socket.log)" 1

# -------- what cannot be --------

refuse 1 "127.0.0.9: Permission denied (publickey)." run --nodes n9@127.0.0.9 one.yaml -- true
refuse 1 "a network on several nodes needs root's wispd on each" run --nodes n1@127.0.0.2,n2@127.0.0.3 two.yaml -- true
refuse 1 "name nodes (--nodes or --hosts)" run one.yaml -- true
refuse 1 "has its own way" run --socket x --nodes n1@127.0.0.2 one.yaml -- true
refuse 1 "--launcher is for ordinary users" env WISP_RUN="$TMP/root" wisp run --launcher ssh --nodes n1 one.yaml -- true
