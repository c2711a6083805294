#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Control groups of clusters by a real kernel: partitions, limits, delegation to a user, what was used,
# killing, removal. In an emulated node of three CPUs, whose groups nobody else uses. Alone: tests/run node-cgroup
. "$(dirname "$0")/lib.sh"
if [ -z "${NODE_CGROUP_INSIDE:-}" ]; then
	. "$(dirname "$0")/lab-lib.sh"
	lab up --name cgroup --nodes 1 --cpus 3 --memory 1G
	lab exec --name cgroup node1 -- env NODE_CGROUP_INSIDE=1 TMPDIR=/tmp "WISP_BUILD=$WISP_BUILD" "$0"
	lab down --name cgroup
	expect_nothing_left "after down"
	exit 0
fi

BASE=/sys/fs/cgroup
cg() {
	"$WISP_BUILD/tests/node-cgroup" "$BASE" "$@"
}
as_user() {
	setpriv --reuid=1000 --regid=1000 --clear-groups "$@"
}
JOB=$BASE/wisp.slice/job-lu

echo "without a partition above there is none below, and the CPUs hold all the same"
expect "slice" "$(cg slice 1-2)" "member 1-2 "
got=$(cg job lu +2 0 67108864 64 1000)
case $got in
isolated\ 2\ * | "member 2 "?*) ;;
*) fail "job: $got" ;;
esac
cg remove lu

echo "partitions"
expect "slice" "$(cg slice +1-2)" "root 1-2 "
expect "the rest of the machine" "$(cat $BASE/cpuset.cpus.effective)" 0
expect "job" "$(cg job lu +2 0 67108864 64 1000)" "isolated 2 "
expect "partition" "$(cat $JOB/cpuset.cpus.partition)" isolated
expect "what the slice has left" "$(cat $BASE/wisp.slice/cpuset.cpus.effective)" 1
expect "memory" "$(cat $JOB/memory.max)" 67108864
expect "pids" "$(cat $JOB/pids.max)" 64
expect "a shared job" "$(cg job other 1 0 0 0 1001)" "member 1 "
got=$(cg job third +2 0 0 0 1001)
case $got in
"member "*" "?*) ;;
*) fail "CPUs of another partition: $got" ;;
esac
cg remove third
refuse 1 "cannot write" cg job fourth 99 0 0 0 1001
cg remove fourth

echo "delegation"
cg part lu keeper 1000
# Not by the function: the shell would stay between, as root.
setpriv --reuid=1000 --regid=1000 --clear-groups sleep 1000 &
keeper=$!
cg enter lu keeper $keeper
expect "keeper's CPUs" "$(sed -n 's/^Cpus_allowed_list:\t*//p' /proc/$keeper/status)" 2
as_user mkdir $JOB/vm-a || fail "the user cannot make a group"
as_user sh -c "echo $keeper >$JOB/vm-a/cgroup.procs" || fail "the user cannot move a process"
expect "where it is" "$(sed -n 's/^0:://p' /proc/$keeper/cgroup)" /wisp.slice/job-lu/vm-a
for file in cpuset.cpus cpuset.mems memory.max pids.max cpuset.cpus.partition; do
	if as_user sh -c "echo 1 >$JOB/$file" 2>/dev/null; then fail "the user writes $file"; fi
done
if as_user sh -c "echo $keeper >$BASE/wisp.slice/job-other/cgroup.procs" 2>/dev/null; then
	fail "the user moves a process to another's job"
fi
refuse 1 "something runs in it" cg remove lu

echo "what was used"
cg part lu vm-b 1000
sh -c 'echo $$ >"$0/vm-b/cgroup.procs"; i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep 1000' "$JOB" &
busy=$!
i=0
until [ "$(cg usage lu vm-b | cut -d' ' -f1)" -gt 10000 ]; do
	i=$((i + 1))
	[ $i -lt 300 ] || fail "no CPU time of a loop: $(cg usage lu vm-b)"
	sleep 0.1
done
set -- $(cg usage lu)
[ "$1" -gt 10000 ] || fail "CPU time of the job: $*"
[ "$2" -gt 0 ] || fail "memory of the job: $*"
[ "$3" -ge "$2" ] || [ "$3" = 0 ] || fail "peak of the job's memory: $*"

echo "the end"
expect "busy" "$(cg busy lu)" 1
cg kill lu
wait $keeper $busy || :
i=0
while [ "$(cg busy lu)" = 1 ]; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "not killed"
	sleep 0.1
done
cg remove lu
cg remove lu
cg remove other
expect "CPUs come back to the slice" "$(cat $BASE/wisp.slice/cpuset.cpus.effective)" 1-2
cg remove -
[ ! -e $BASE/wisp.slice ] || fail "the slice is left"
expect "CPUs come back to the machine" "$(cat $BASE/cpuset.cpus.effective)" 0-2
