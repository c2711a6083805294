#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An ordinary user's cluster over three nodes with a daemon each: a program's output and exit code; an
# MPI job that is saved as a whole, loses a node, and goes on at the other two; what is left. Alone: tests/run cluster-nodes
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cluster-lib.sh"
wisp image build -q "$TOP/images/mpi.yaml" -o mpi
mkdir -p "$SHARED"
mpicc.openmpi -O2 -o "$SHARED/ring" "$TOP/demo/ring.c"
cat >"$SHARED/env.yaml" <<'END'
base: image:mpi
files: {/usr/local/bin/ring: {from: ring, mode: "0755"}}
vms: 3
vms-per-node: 3
memory: 256M
END
cluster_image "$SHARED/env.yaml" ring
start_cluster_lab ann bob

CHECK='import json, sys
one = json.load(sys.stdin)
print(eval(sys.argv[1]))'
# show USER NAME EXPRESSION: of "one", what wisp cluster show says
show() {
	as "$1" node1 wisp cluster show "$2" --json >"$TMP/show.json" || fail "wisp cluster show $2: exit code $?"
	python3 -c "$CHECK" "$3" <"$TMP/show.json"
}
# logs_have USER NAME PATTERN
logs_have() {
	as "$1" node1 wisp cluster logs "$2" | grep -q "$3"
}

# steps: how far the ring is; more_steps N: further than that
steps() {
	as ann node1 wisp cluster logs ring | sed -n 's/^step \([0-9]*\) .*/\1/p' | tail -n 1
}
more_steps() {
	[ "$(steps)" -gt "$1" ]
}
has_ended() {
	[ "$(show ann ring '"end" in one')" = True ]
}
# has_nothing N: no VM, control group or network of any cluster at nodeN
has_nothing() {
	on "node$1" sh -c '! pgrep -x "wisp-vmm|wisp-keeper|wisp-part" && ! ls -d /sys/fs/cgroup/wisp.slice/job-* &&
		[ -z "$(ls /run/wisp/node/net 2>/dev/null)" ]' >/dev/null 2>&1
}

echo "a program in the first VM: output, errors, input, exit code"
rc=0
echo text | as ann node1 wisp run -q --nodes "$NODES" --name one --image ring "$SHARED/env.yaml" -- \
	sh -c 'hostname; id -un; cat; echo bad >&2; exit 7' >"$TMP/out" 2>"$TMP/err" || rc=$?
[ "$rc" = 7 ] || cat "$TMP/err" >&2
expect "exit code" "$rc" 7
expect "output" "$(tr '\n' ' ' <"$TMP/out")" "one-0 ann text "
expect "errors" "$(cat "$TMP/err")" bad
expect "clusters" "$(as ann node1 wisp cluster list --names)" ""

echo "a ring of MPI ranks in three VMs on three nodes, and a checkpoint of all of it"
mkdir -m 777 "$SHARED/saved"
as ann node1 wisp run -q -d --nodes "$NODES" --name ring --image ring "$SHARED/env.yaml" -- \
	mpirun ring --until /tmp/finish --nap 20
wait_for 120 logs_have ann ring "^step" || fail "the ring does not go round"
expect "places" "$(show ann ring '" ".join(v["node"] for v in one["vms"])')" "node1 node2 node3"
refuse 1 "ring" as bob node1 wisp cluster show ring
expect "another user's clusters" "$(as bob node1 wisp cluster list --names)" ""
as ann node1 wisp cluster checkpoint ring --to "$SHARED/saved" --live --json >"$TMP/saved.json"
before=$(steps)
wait_for 60 more_steps "$before" || fail "the ring does not go on after the checkpoint"

echo "a node dies, and the cluster with it; the others have nothing of it left"
on node3 sh -c 'echo o >/proc/sysrq-trigger' >/dev/null 2>&1 || :
wait_for 60 has_ended || fail "nobody has noticed that node3 is gone"
for n in 1 2; do
	wait_for 30 has_nothing "$n" || fail "node$n: $(on "node$n" wisp node show)"
done

echo "it goes on from the checkpoint on two nodes"
refuse 1 "--lost node3" as ann node1 wisp cluster restart -q -d "$SHARED/saved" --nodes "${NODES%,*}"
as ann node1 wisp cluster restart -q -d "$SHARED/saved" --nodes "${NODES%,*}" --lost node3
expect "places" "$(show ann ring '" ".join(v["node"] for v in one["vms"])')" "node1 node1 node2"
wait_for 120 more_steps "$before" || fail "the ring does not go on after the restart"
as ann node1 wisp cluster exec ring -- touch /tmp/finish
wait_for 60 logs_have ann ring "steps of 3 ranks.*: right" || {
	as ann node1 wisp cluster logs ring | tail -n 5
	fail "the ring's end"
}
wait_for 30 has_ended || fail "the cluster does not end with its program"
expect "its exit code" "$(show ann ring 'one["end"]["code"]')" 0
for n in 1 2; do
	wait_for 30 has_nothing "$n" || fail "node$n: $(on "node$n" wisp node show)"
done
