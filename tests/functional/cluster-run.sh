#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp run with real VMs on one node: OpenMPI and MPICH over all of them by themselves, exec and cp,
# a checkpoint while it works, its restart, a killed coordinator, a dead guest. Alone: tests/run cluster-run
VM_IMAGES=mpi
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

cd "$TMP"
daemons() {
	for daemon in $(grep -lzxF "WISP_RUN=$WISP_RUN" /proc/[0-9]*/environ 2>/dev/null); do
		daemon=${daemon%/environ}
		case $(cat "$daemon/comm" 2>/dev/null) in
		wispd) echo "${daemon#/proc/}" ;;
		esac
	done
}
end_daemon() {
	for daemon in $(daemons); do kill "$daemon" 2>/dev/null || :; done
	wait_for 10 sh -c "for p in $(daemons | tr '\n' ' '); do [ ! -d /proc/\$p ] || exit 1; done" || :
}
at_exit end_daemon
at_exit 'wisp cluster stop $(wisp cluster list --names) 2>/dev/null || :'
cat >lu.yaml <<'END'
name: lu
vms: 2
vms-per-node: 2
cpus: 1
memory: 512M
END
run() {
	timeout 300 wisp run --image mpi "$@" </dev/null
}

echo "OpenMPI finds all VMs by itself"
rc=0
run lu.yaml -- sh -c 'mpirun.openmpi hostname | sort; exit 7' >out || rc=$?
expect "OpenMPI" "$rc $(tr '\n' ' ' <out)" "7 lu-0 lu-1 "
expect "what is left" "$(wisp cluster list; wisp vm list --names)" ""

echo "MPICH is started by the environment"
printf 'mpi: mpich\nranks: 2\nprogram: [hostname]\n' >mpich.yaml
expect "MPICH" "$(run -q -f mpich.yaml lu.yaml | sort | tr '\n' ' ')" "lu-0 lu-1 "

echo "A checkpoint while it works"
run -d lu.yaml -- sh -c '(while echo text; do sleep 0.1; done) | wisp-rsh lu-1 "cat >/dev/null" &
	i=0; until [ -e /go ]; do i=$((i+1)); echo $i; sleep 0.2; done; echo over; exit 9' >/dev/null
expect "exec" "$(wisp cluster exec lu-1 hostname)" lu-1
echo text >file
wisp cluster cp -q file lu-1:/file
expect "cp" "$(wisp cluster exec lu-1 cat /file)" text
wisp cluster checkpoint lu --to "$TMP/saved" --live --json >report.json
python3 - report.json <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
print(report["skew_ns"], report["tcp"])
assert sorted(report["vms"]) == sorted(report["tcp"]["vms"]) == ["lu-0", "lu-1"]
assert report["tcp"]["ms"] >= 1000
assert all(0 <= vm["retransmitted"] and 0 < vm["sent"] for vm in report["tcp"]["vms"].values())
END
wisp checkpoint show saved | grep -q "^tcp  .* segments sent again" || fail "the manifest does not tell of TCP"
last=$(wisp cluster logs lu | tail -n 1)
wisp checkpoint verify saved
wisp cluster stop lu
expect "what is left" "$(wisp cluster list; wisp vm list --names)" ""

echo "It goes on from there"
timeout 300 wisp cluster restart saved </dev/null >out 2>err &
pid=$!
wait_for 200 sh -c 'wisp cluster list | grep -q "^lu  *run "' || fail "the restarted cluster does not run"
expect "a file of then" "$(wisp cluster exec lu-1 cat /file)" text
wait_for 60 sh -c "[ \"\$(tail -n 1 out)\" -gt \"$last\" ]" || fail "the program does not go on from $last"
wisp cluster exec lu touch /go
rc=0
wait $pid || rc=$?
expect "its end" "$rc $(tail -n 1 out)" "9 over"

echo "A killed coordinator"
run -q -d lu.yaml -- sleep 1000 >/dev/null
kill -KILL "$(wisp cluster show lu --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')"
wait_for 10 sh -c 'wisp cluster list | grep -q "^lu  *lost"' || fail "it is not shown as lost"
wait_for 90 sh -c '[ -z "$(wisp vm list --names)" ]' || fail "its VMs live on"

echo "A guest that dies, and its agent with it, ends the next job"
rc=0
run --name lu2 lu.yaml -- sh -c 'hostname; wisp-rsh lu2-1 "echo c >/proc/sysrq-trigger"; sleep 1000' >out 2>err || rc=$?
expect "the job" "$rc $(cat out)" "1 lu2-0"
grep "VM lu2-1 at node .* has ended: .*panic" err || {
	cat err >&2
	fail "it is not said who died"
}
expect "what is left" "$(wisp vm list --names)" ""
