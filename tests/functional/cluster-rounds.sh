#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A ring of MPI ranks over two nodes is saved as a whole, killed and restarted at random moments,
# $WISP_TEST_ROUNDS times (30); what it holds at the end shows a packet that was lost or came twice.
# $WISP_TEST_SEED repeats the choices of an earlier run. Alone: tests/run cluster-rounds
# shellcheck disable=SC2034 # cluster-lib.sh's
CLUSTER_NODES=2
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cluster-lib.sh"
NODES=node1,node2@10.77.0.3
SAVED=$SHARED/saved
rounds=${WISP_TEST_ROUNDS:-30}
random=${WISP_TEST_SEED:-$(date +%s)}
echo "seed $random"
wisp image build -q "$TOP/images/mpi.yaml" -o mpi
mkdir -p "$SHARED"
mpicc.openmpi -O2 -o "$SHARED/ring" "$TOP/demo/ring.c"
cat >"$SHARED/env.yaml" <<'END'
base: image:mpi
files: {/usr/local/bin/ring: {from: ring, mode: "0755"}}
vms: 2
vms-per-node: 1
memory: 256M
END
cluster_image "$SHARED/env.yaml" ring
start_cluster_lab ann
mkdir -m 777 "$SAVED"

# pick N: sets $picked to 0 ... N - 1
pick() {
	random=$(((random * 1103515245 + 12345) % 2147483648))
	picked=$((random / 65536 % $1))
}
# nap: for up to two seconds
nap() {
	pick 20
	sleep "$((picked / 10)).$((picked % 10))"
}
steps() {
	as ann node1 wisp cluster logs ring | sed -n 's/^step \([0-9]*\) .*/\1/p' | tail -n 1
}
# gets_beyond N: the ring has told a later step
gets_beyond() {
	now=$(steps)
	[ "${now:-0}" -gt "$1" ]
}
has_ended() {
	as ann node1 wisp cluster show ring --json | grep -q '"end"'
}
save() {
	pick 2
	[ "$picked" = 0 ] && how=--live || how=--stop
	pick 2
	[ "$picked" = 0 ] && what=--full || what=--incremental
	as ann node1 wisp cluster checkpoint ring --to "$SAVED" "$how" "$what" --json
}
# kill_at NODE PROGRAM: all of ann's of that name
kill_at() {
	on "$1" pkill -KILL -x -u ann "$2" || :
}
# Something of the cluster, or all, ends without a word.
kill_some() {
	pick 5
	case $picked in
	0) killed="a VM" && kill_at node2 wisp-vmm ;;
	1) killed="the first VM" && kill_at node1 wisp-vmm ;;
	2) killed="the coordinator" && kill_at node1 wisp-job ;;
	3) killed="a keeper, and all VMs that it has" && kill_at node2 wisp-keeper ;;
	4) killed="everything of the user" && for node in node1 node2; do
		on "$node" pkill -KILL -u ann || :
	done ;;
	esac
}

as ann node1 wisp run -q -d --nodes "$NODES" --name ring --image ring "$SHARED/env.yaml" -- \
	mpirun ring --until /tmp/finish --nap 20
wait_for 120 gets_beyond 0 || fail "the ring does not go round"
round=0
while [ "$round" -lt "$rounds" ]; do
	round=$((round + 1))
	nap
	save >"$TMP/saved.json" || fail "round $round: no checkpoint"
	before=$(steps)
	nap
	pick 3
	if [ "$picked" = 0 ]; then # in the middle of the next one
		save >/dev/null 2>&1 &
		nap
		kill_some
		wait $! && killed="$killed, after another checkpoint" || killed="$killed, in a checkpoint"
	else
		kill_some
	fi
	echo "round $round: step ${before:-0}, $how $what; killed: $killed"
	as ann node1 timeout 200 wisp cluster restart -q -d "$SAVED" --stop --nodes "$NODES" ||
		fail "round $round: no restart"
	wait_for 120 gets_beyond "${before:-0}" || fail "round $round: the ring has stopped at step $(steps)"
	as ann node1 wisp cluster logs ring >"$TMP/log"
	sed -n 's/^step \([0-9]*\) .*/\1/p' "$TMP/log" | sort -n -u -c ||
		fail "round $round: steps are told twice, or not in their order"
done

as ann node1 wisp cluster exec ring -- touch /tmp/finish
wait_for 120 has_ended || fail "the ring does not end"
as ann node1 wisp cluster logs ring | tail -n 1
as ann node1 wisp cluster logs ring | grep -q "steps of 2 ranks.*: right" || fail "the ring's end"
