#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An image goes to the nodes of a job by Slurm's sbcast: real daemons of Slurm and MUNGE on the
# loopback, three nodes of them, each with a folder of its own at the same path.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "needs root, for the daemons of Slurm"
PATH=$PATH:/usr/sbin
for tool in slurmctld slurmd salloc sbcast munged mmdebstrap sqfstar unshare; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
wisp=$WISP_BUILD/src/cli/wisp
SLURM_CONF=$TMP/slurm.conf
# What each node has for itself, and nobody else sees.
MINE=$TMP/mine
export SLURM_CONF MINE

# configuration PORT...
configuration() {
	cat <<-END
		ClusterName=wisp
		SlurmctldHost=$(uname -n)(127.0.0.1)
		SlurmctldPort=$1
		SlurmUser=root
		SlurmdUser=root
		AuthInfo=socket=$TMP/munge.socket
		CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
		StateSaveLocation=$TMP/state
		SlurmdSpoolDir=$TMP/spool-%n
		SlurmctldPidFile=$TMP/slurmctld.pid
		SlurmdPidFile=$TMP/%n.pid
		SlurmctldLogFile=$TMP/slurmctld.log
		SlurmdLogFile=$TMP/%n.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		SelectType=select/cons_tres
		MpiDefault=none
		NodeName=n1 NodeHostname=$(uname -n) NodeAddr=127.0.0.1 Port=$2
		NodeName=n2 NodeHostname=$(uname -n) NodeAddr=127.0.0.1 Port=$3
		NodeName=n3 NodeHostname=$(uname -n) NodeAddr=127.0.0.1 Port=$4
		PartitionName=all Nodes=ALL Default=YES State=UP
	END
}

# daemon COMMAND...: until the end of the test
DAEMONS=
at_exit 'for d in $DAEMONS; do kill "$d" 2>/dev/null; done; wait'
daemon() {
	"$@" >>"$TMP/daemons.log" 2>&1 &
	DAEMONS="$! $DAEMONS"
}

# wait_for WHAT COMMAND...: 30 s at most.
wait_for() {
	wait_what=$1 wait_tries=0
	shift
	until "$@" 2>/dev/null; do
		wait_tries=$((wait_tries + 1))
		[ "$wait_tries" -lt 300 ] || fail "no $wait_what: $(tail -n 20 "$TMP"/*.log)"
		sleep 0.1
	done
}
idle() {
	[ "$(sinfo -h -t idle -o %D)" = 3 ]
}

# each COMMAND...: at every node
each() {
	srun -N3 --ntasks-per-node=1 env WISP_HOME="$MINE/home" "$@"
}

WISP_HOME=$TMP/home "$wisp" image build -q "$TOP/images/minimal.yaml" -o m
digest=$(WISP_HOME=$TMP/home "$wisp" image show m --json |
	python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
WISP_HOME=$TMP/home "$wisp" image export -q m "$TMP/m.img"

configuration $(python3 -c 'import socket
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(x.getsockname()[1] for x in s))') >"$SLURM_CONF"
(umask 077 && head -c 64 /dev/zero | tr '\0' w >"$TMP/key")
chmod 755 "$TMP" # MUNGE wants to know that nobody else gets in between
mkdir "$TMP/state" "$MINE"
daemon munged --foreground --force --socket="$TMP/munge.socket" --key-file="$TMP/key" \
	--pid-file="$TMP/munge.pid" --seed-file="$TMP/seed" --log-file="$TMP/munge.log"
wait_for "MUNGE" [ -S "$TMP/munge.socket" ]
daemon slurmctld -D
for node in n1 n2 n3; do
	daemon unshare -m sh -c 'mount -t tmpfs none "$MINE" && exec slurmd -D -N "$1"' sh $node
done
wait_for "three nodes" idle
salloc -Q --no-shell -N3
SLURM_JOB_ID=$(squeue -h -o %i)
export SLURM_JOB_ID
at_exit 'scancel "$SLURM_JOB_ID" && wait_for "end of the job" sh -c "[ -z \"\$(squeue -h)\" ]"'

sbcast "$TMP/m.img" "$MINE/m.img"
[ ! -e "$MINE/m.img" ] || fail "the nodes have no folder of their own"
each "$wisp" image import -q "$MINE/m.img"
each "$wisp" image verify "m@sha256:$digest" >"$TMP/said"
expect "nodes that have it" "$(grep -c '^m: ok' "$TMP/said")" 3
each "$wisp" image import -q "$MINE/m.img" --json >"$TMP/said"
expect "nodes that had it" "$(grep -c '"was_there": true' "$TMP/said")" 3

# What was changed on its way is no image at any node.
size=$(stat -c %s "$TMP/m.img")
printf X | dd of="$TMP/m.img" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
sbcast --force "$TMP/m.img" "$MINE/m.img"
each sh -c 'WISP_HOME=$MINE/other; export WISP_HOME
	"$1" image import -q "$MINE/m.img" 2>&1 && exit 9
	echo "has: $("$1" image list --names)"' sh "$wisp" >"$TMP/said"
expect "nodes that refuse it" "$(grep -c '^wisp image import: ' "$TMP/said")" 3
expect "nodes without it" "$(grep -cx 'has: ' "$TMP/said")" 3
