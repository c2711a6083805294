#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two nodes with ssh: while an MPI program runs in two VMs one of them moves to the other node, is
# saved and killed there, restored, and moves again; what keeps it from moving; a large stream by TCP.
# Alone: tests/run lab-migrate
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab-lib.sh"
mkdir "$TMP/share"
mpicc.openmpi -O2 -o "$TMP/share/exchange" "$TOP/tests/exchange.c"
wisp image build -q "$TOP/images/mpi.yaml" -o mpi
lab up --nodes 2 --ssh --memory 3G --share "$TMP/share" 2>"$TMP/log" || fail "up: $(cat "$TMP/log")"
node1() {
	lab exec node1 -- "$@"
}
node2() {
	lab exec node2 -- "$@"
}
nodes_consoles() {
	for node in node1 node2; do
		lab exec "$node" -- sh -c 'tail -n 30 /run/wisp/vm/*/console 2>&1'
	done
}
at_failure=nodes_consoles

echo "demo2 moves, and comes back from the dead, while a program runs in it"
node1 wisp vm start demo1 demo2 --image mpi --memory 256M
node1 "$TOP/tests/functional/lab-migrate-moves" "$TMP/share" 256M
grep -q "of 2 ranks.*: right" "$TMP/share/exchange.txt" || fail "the answer is not right"
expect "VMs of node2" "$(node2 wisp vm list --names)" ""
expect "VMs of node1" "$(node1 wisp vm list --names | tr '\n' ' ')" "demo1 demo2 "

echo "obstacles"
refuse 1 "no address of node node9" node1 wisp vm migrate demo2 node9
refuse 1 "cannot run wisp there" node1 wisp vm migrate demo2 node2 --remote-wisp /nowhere/wisp
refuse 1 "ended with exit code 255" node1 wisp vm migrate demo2 node7 --host 10.77.0.3
expect "it stays" "$(node1 wisp vm list --names | tr '\n' ' ')" "demo1 demo2 "

echo "a stream of full frames while it moves, and the old place is silent"
node1 wisp vm exec demo1 -- sh -c 'head -c 20M /dev/urandom >/tmp/data'
node1 wisp vm cp "$TOP/tests/functional/tcp-stream.pl" demo1:/tmp/stream
node1 wisp vm cp "$TOP/tests/functional/tcp-stream.pl" demo2:/tmp/stream
node1 wisp vm exec demo2 -- sh -c 'perl /tmp/stream receive 2>/tmp/why | sha256sum >/tmp/sum &'
node1 wisp vm exec demo1 -- perl /tmp/stream send 10.78.0.3 /tmp/data >"$TMP/sent" &
stream=$!
sleep 2
node1 wisp vm migrate demo2 node2 --max-downtime 2000 --throttle
wait $stream || fail "the stream broke: $(cat "$TMP/sent")"
expect "what came" "$(node2 wisp vm exec demo2 cat /tmp/sum | cut -d' ' -f1)" \
	"$(node1 wisp vm exec demo1 -- sha256sum /tmp/data | cut -d' ' -f1)"
expect "VMs of node1" "$(node1 wisp vm list --names)" demo1
for at in "node1 demo1" "node2 demo2"; do
	names=$(lab exec ${at% *} -- wisp vm exec ${at#* } -- grep -c 'demo[12].*wisp' /etc/hosts)
	expect "names in $at" "$names" 2
done
expect "links" "$(node2 wisp network show default --json | tr -d ' \n' |
	sed 's/.*"nodes":\[\([^]]*\)\].*/\1/')" '"10.77.0.3","10.77.0.2"'

echo "programs across nodes, and MPICH's daemons stay connected while one of them moves back"
expect "wisp-rsh" "$(node1 wisp vm exec demo1 -- wisp-rsh demo2 hostname)" demo2
for mpi in "mpirun.openmpi --host demo1,demo2" "mpirun.mpich -hosts demo1,demo2"; do
	expect "$mpi" "$(node1 wisp vm exec demo1 -- $mpi -np 2 hostname | sort | tr '\n' ' ')" "demo1 demo2 "
done
node1 wisp vm exec demo1 -- mpirun.mpich -hosts demo1,demo2 -np 2 \
	sh -c 'touch /tmp/runs; until [ -e /tmp/end ]; do sleep 0.2; done; hostname' >"$TMP/hosts" &
mpich=$!
for i in $(seq 200); do
	! node2 wisp vm exec demo2 -- test -e /tmp/runs || break
	sleep 0.2
done
node2 wisp vm migrate demo2 node1 --max-downtime 2000 --throttle
for vm in demo1 demo2; do
	node1 wisp vm exec $vm -- touch /tmp/end
done
wait $mpich || fail "MPICH's program broke: $(cat "$TMP/hosts")"
expect "MPICH's output" "$(sort "$TMP/hosts" | tr '\n' ' ')" "demo1 demo2 "
node1 wisp vm stop --all --kill
node2 wisp vm stop --all --kill
lab down 2>/dev/null
expect_nothing_left "after down"
