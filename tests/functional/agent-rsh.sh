#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp-rsh from agent to agent: ssh's manners, who may do what, and both MPI's ways of calling it.
# The machines are addresses of the loopback interface in a network and with an /etc of their own.
if [ -z "${AGENT_RSH_INSIDE:-}" ]; then
	export AGENT_RSH_INSIDE=1
	[ "$(id -u)" = 0 ] || set -- --map-current-user --keep-caps
	unshare "$@" --net true || { echo "no network namespaces for this user"; exit 77; }
	exec unshare "$@" --net --mount "$0"
fi
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
cp -a /etc "$TMP/etc" 2>/dev/null || :
printf '127.0.0.1\tlocalhost\n' >"$TMP/etc/hosts"
mount --bind "$TMP/etc" /etc
at_exit "umount /etc"
ip link set lo up
hosts='{"name":"n1","address":"127.0.0.2"},{"name":"n2","address":"127.0.0.3"},{"name":"n3","address":"127.0.0.4"}'

# serve NAME ADDRESS: an agent that is this machine at that address.
serve() {
	"$WISP_BUILD/src/agent/wisp-agent" --listen "unix:$TMP/$1" --relay "$TMP/relay-$1" 2>>"$TMP/agent.log" &
	AGENT=$!
	at_exit "{ kill $AGENT && wait $AGENT; } 2>/dev/null || :"
	"$WISP_BUILD/tests/agent-client" "unix:$TMP/$1" wait 10000
	"$WISP_BUILD/tests/agent-client" "unix:$TMP/$1" call \
		'{"op":"configure","hosts":['"$hosts"'],"peers":"'"$2"'"}' >/dev/null
}
serve n1 127.0.0.2
serve n2 127.0.0.3
WISP_RELAY=unix:$TMP/relay-n1
export WISP_RELAY
rsh=$WISP_BUILD/src/agent/wisp-rsh

# ssh's manners.
expect "words are joined for a shell" "$($rsh n2 echo '$((6 * 7))' ';' echo b)" "42
b"
rc=0
$rsh n2 exit 77 || rc=$?
expect "exit code" $rc 77
rc=0
$rsh n2 'kill -9 $$' || rc=$?
expect "killed" $rc 137
expect "stdin" "$(echo text | $rsh n2 cat)" text
expect "no stdin" "$(echo text | $rsh -n n2 cat)" ""
expect "/dev/null" "$($rsh n2 cat </dev/null)" ""
expect "stderr apart" "$($rsh n2 'echo out; echo err >&2' 2>/dev/null)" out
expect "begins at home" "$(cd / && $rsh n2 pwd)" "$(cd ~ && pwd -P)"
expect "environment is not taken along" "$(SECRET=1 $rsh n2 'echo "[$SECRET]"')" "[]"
expect "options of ssh" "$($rsh -x -q -o StrictHostKeyChecking=no -p 22 -4 n2 echo a)" a
expect "options behind the host" "$($rsh n2 -x -n echo -n a)" a
expect "a shell" "$(echo 'echo from a shell' | $rsh n2)" "from a shell"
head -c 50000000 /dev/urandom >"$TMP/data"
$rsh n2 cat <"$TMP/data" | cmp - "$TMP/data" || fail "bytes changed on their way"
if [ "$(id -u)" = 0 ]; then
	expect "-l" "$($rsh -l 54321 n2 id -u)" 54321
	expect "user@host" "$($rsh 54321@n2 id -u)" 54321

	# Others are who they are there too, whatever they say.
	chmod 711 "$TMP"
	as="setpriv --reuid 54321 --regid 54321 --clear-groups"
	expect "as oneself" "$($as $rsh n2 id -u)" 54321
	refuse 255 "user 54321 may not ask for exec as user 0" $as $rsh -l root n2 id
	refuse 255 "user 54321 may not ask for exec as user 54322" $as $rsh -l 54322 n2 id
	refuse 255 "Permission denied" $as "$WISP_BUILD/tests/agent-client" "unix:$TMP/n2" facts
fi

# What fails says why, with ssh's code.
refuse 255 "wisp-rsh: n9: no VM n9 is in this network" $rsh n9 true
refuse 255 "wisp-rsh: n3: cannot connect to the agent of the VM: Connection refused" $rsh n3 true
refuse 255 "Usage" $rsh
WISP_RELAY=unix:$TMP/nosuch refuse 255 "cannot connect to $TMP/nosuch" $rsh n2 true

# A launcher that is killed takes the daemon along.
$rsh n2 'echo $$; exec sleep 1000' >"$TMP/out" &
launcher=$!
wait_for 10 grep -q . "$TMP/out"
kill -KILL $launcher
wait $launcher || :
wait_for 15 gone "$(cat "$TMP/out")"

# MPICH's hydra: the proxy in quotes, its options behind it, no stdin.
mkdir "$TMP/bin"
printf '#!/bin/sh\nfor a; do echo "[$a]"; done\n' >"$TMP/bin/proxy"
chmod +x "$TMP/bin/proxy"
expect "hydra's call" "$($rsh -x n2 "\"$TMP/bin/proxy\"" --control-port n1:4711 --rmk user \
	--launcher ssh --usize -2 --pmi-port 0 --proxy-id 0 </dev/null | tr -d '\n')" \
	"[--control-port][n1:4711][--rmk][user][--launcher][ssh][--usize][-2][--pmi-port][0][--proxy-id][0]"
# OpenMPI's orted: settings of the shell first, words in quotes.
expect "OpenMPI's call" "$($rsh n2 "PATH=$TMP/bin:\$PATH ; export PATH ; proxy -mca ess \"env\" -mca \
ess_base_jobid \"1\" -mca orte_hnp_uri \"1.0;tcp://192.0.2.1:5\"" | tr -d '\n')" \
	"[-mca][ess][env][-mca][ess_base_jobid][1][-mca][orte_hnp_uri][1.0;tcp://192.0.2.1:5]"

# The real ones, where they are installed: two "hosts" that are this machine.
launch() {
	launch_what=$1
	shift
	timeout 60 "$@" >"$TMP/mpi" 2>&1 || { cat "$TMP/mpi" >&2; fail "$launch_what"; }
	expect "$launch_what started both" "$(grep -c started "$TMP/mpi")" 2
}
if command -v orterun >/dev/null; then
	# One folder for all: mpirun makes it before the daemons, which would race for it. rtc/hwloc
	# gives the ranks a map of the machine at an address that it hopes is free: daemons crash.
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 launch OpenMPI \
		orterun --mca plm_rsh_agent "$rsh" --mca oob_tcp_if_include lo --mca btl self \
		--mca orte_tmpdir_base "$TMP" --mca rtc ^hwloc \
		--host n1:1,n2:1 --oversubscribe -np 2 echo started
fi
if command -v mpiexec.hydra >/dev/null; then
	launch MPICH mpiexec.hydra -launcher ssh -launcher-exec "$rsh" -hosts n1,n2 -ppn 1 -n 2 \
		-localhost 127.0.0.1 echo started
fi
