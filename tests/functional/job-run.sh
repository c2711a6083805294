#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp run and wisp cluster against a stand-in for the nodes (job-node.py): stages, output, input,
# signals, exit codes, each stage failing, terminals that come and go, killed coordinators.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "the stand-in's agent needs a mount namespace of root"

export WISP_RUN="$TMP/run" WISP_HOME="$TMP/home"
cd "$TMP"

# -------- what it needs: an image, an agent that sees another /etc, nodes --------

tiny_image home
cp -a /etc "$TMP/etc"
unshare -m sh -c "mount --bind '$TMP/etc' /etc && exec '$WISP_BUILD/src/agent/wisp-agent' --listen 'unix:$TMP/agent'" &
agent=$!
at_exit 'kill $agent 2>/dev/null; wait $agent 2>/dev/null || :'
nodes=
stop_nodes() {
	[ -z "$nodes" ] || kill "$nodes" 2>/dev/null || :
	[ -z "$nodes" ] || wait "$nodes" 2>/dev/null || :
	nodes=
}
at_exit stop_nodes
at_failure=logs
logs() {
	cat "$TMP/err" "$TMP/err.move" "$TMP/out" "$WISP_RUN"/job/*/log
}

# start_nodes N [OP=BEHAVIOUR...]
start_nodes() {
	stop_nodes
	start_n=$1
	shift
	: >"$TMP/asked"
	python3 "$TOP/tests/functional/job-node.py" "$TMP/socket" "$start_n" "$TMP/agent" "$@" >"$TMP/asked" &
	nodes=$!
	until_true grep -q listens "$TMP/asked"
}

until_true() {
	for _ in $(seq 200); do
		if "$@" 2>/dev/null; then return; fi
		sleep 0.05
	done
	fail "in vain for 10 s: $*"
}

run() {
	timeout 60 wisp run --socket "$TMP/socket" --image tiny "$@"
}

# A shell has its background commands ignore ^C.
launch() {
	: >out
	python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("wisp", ["wisp", "run", "--socket", os.environ["TMP"] + "/socket", "--image", "tiny"] + sys.argv[1:])' \
		"$@" >out 2>err </dev/null &
	pid=$!
}
begin() {
	launch "$@"
	until_true grep -q runs out
}

nothing_left() {
	[ -z "$(find "$WISP_RUN/job" -mindepth 1 2>/dev/null)" ]
}

cleaned() {
	until_true nothing_left
}
printf 'vms: 2..3\nprogram: [echo, of, the, environment]\n' >lu.yaml
start_nodes 2
until_true test -S "$TMP/agent"

# -------- a checkpoint that takes more than a minute, beside all that follows --------

printf 'vms: 2\n' >none.yaml
mkdir "$TMP/slow-run"
python3 "$TOP/tests/functional/job-node.py" "$TMP/slow-socket" 2 "$TMP/agent" save-resume=late@1 >"$TMP/slow-asked" &
slow_nodes=$!
at_exit 'kill $slow_nodes 2>/dev/null || :'
until_true grep -q listens "$TMP/slow-asked"
slow() {
	env WISP_RUN="$TMP/slow-run" wisp "$@"
}
slow run -q -d --name slow --socket "$TMP/slow-socket" --image tiny --nodes n0@127.0.0.1,n1@127.0.0.2 none.yaml >/dev/null
slow cluster checkpoint slow --to slow-saved >slow-report 2>&1 &
slow_save=$!
at_exit 'slow cluster stop slow >/dev/null 2>&1 || :; kill $slow_save 2>/dev/null || :'

# -------- a run --------

rc=0
printf 'in\nput\n' | run --nodes 'n[0-1]@127.0.0.[1-2]' lu.yaml -- sh -c 'cat; cat /etc/wisp/hosts.openmpi >&2; exit 7' >out 2>err || rc=$?
expect "exit code" $rc 7
expect "output" "$(cat out)" "$(printf 'in\nput')"
grep -q "^lu-1 slots=1" err || fail "no host file"
for stage in resolve place reserve network image start ready prepare; do
	grep -q "^lu: $stage .* s$" err || fail "stage $stage is not told"
done
expect "requests" "$(grep -v -e connect -e left asked | cut -d' ' -f1 | tr '\n' ' ')" \
	"listens join facts reserve reserve network image start stop release "
grep -q "^network 0,1 127.0.0.0-127.0.0.1 of 0-1$" asked || fail "the network is not told as ranges: $(grep ^network asked)"
grep -q "^start 0,1 lu-0 10.78.0.2 x 2$" asked || fail "names and addresses are not told as a range: $(grep ^start asked)"
cleaned
expect "the environment's program" "$(run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml </dev/null)" "of the environment"
expect "label" "$(run -q -l --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- printf 'a\nb\n' </dev/null | tr '\n' ' ')" "lu-0: a lu-0: b "
expect "variables" "$(run -q -e A=b --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo $A $HYDRA_HOST_FILE' </dev/null)" \
	"b /etc/wisp/hosts.mpich"
expect "a name" "$(run -q --name other --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- cat /etc/wisp/hosts.mpich </dev/null | head -n 1)" "other-0:1"
expect "1 GiB, counted" "$(run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- head -c 104857600 /dev/zero </dev/null | wc -c)" 104857600
expect "and in" "$(head -c 20000000 /dev/zero | run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- wc -c)" 20000000
rc=0
run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'kill -9 $$' </dev/null || rc=$?
expect "a killed program" $rc 137
rc=0
run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- no-such-program </dev/null 2>err || rc=$?
expect "no program" $rc 127
cleaned

# -------- what cannot be --------

refuse 2 "give an environment" wisp run
refuse 2 "--vms" wisp run -n 0 lu.yaml
refuse 2 "named twice" wisp run --nodes a,a lu.yaml
refuse 2 "not NAME=VALUE" wisp run -e A lu.yaml
refuse 1 "node no.such@host.invalid has no IPv4 address" run --nodes n0@127.0.0.1,no.such@host.invalid lu.yaml
refuse 1 "do not fit, only 2: n0 takes 1; n1 takes 1" run -n 3 --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
refuse 1 "do not fit, only 2: n0 takes 1; n1 takes 1" run -q -n 3 --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
refuse 1 "conflict" run -n 4 -f lu.yaml --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
refuse 1 "no image none" run --image none --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
printf 'vms: 2\ncpus: 2\nmpi: openmpi\nranks: 5\nprogram: [x]\n' >mpi.yaml
refuse 1 "5 ranks do not fit into 2 VMs of 2" run --nodes n0@127.0.0.1,n1@127.0.0.2 mpi.yaml
printf 'vms: 6\nvms-per-node: 4\nnetwork: {subnet: 10.1.0.0/29}\n' >small6.yaml
refuse 1 "6 VMs do not fit into network.subnet" run --nodes n0@127.0.0.1,n1@127.0.0.2 small6.yaml
cleaned

# fails WHAT TEXT LAST-REQUEST: the nodes of that behaviour make it fail, and have given all back
fails() {
	start_nodes 2 "$1"
	refuse 1 "$2" run --ready 2 --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sleep 100
	until_true grep -q left asked
	expect "$1: before" "$(tail -n 2 asked | head -n 1 | cut -d' ' -f1)" "$3"
	cleaned
}
fails join=gone@1 "n1 takes 0 (no route to it)" facts
fails reserve=fail@1 "reserve: node n1: no reserve here" release
fails image=fail@1 "image: node n1: no image here" release
start_nodes 2 image=lacks@0 image=lacks@1
refuse 1 "none of the nodes that get VMs has tiny" run --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
start_nodes 2 image=lacks@1
run --json --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- true 2>err
python3 -c 'import json; [json.loads(line) for line in open("err")]' || fail "--json tells something else as well"
expect "who has the image" "$(grep from asked)" "from n0@127.0.0.1"
grep '"stage":"image"' err | grep -q '"done":1,"of":3,"unit":"MiB"' || fail "nobody hears how the image comes"
cleaned
fails network=fail@0 "network: node n0: no network here" release
fails start=fail@1 "start: node n1: no start here" release
fails start=dies@1 "VM lu-1 at node n1 has ended: panic" release
fails start=never@0 "1 of 2 VMs are not ready after 2 s, of them lu-0 at node n0" release
start_nodes 2 start=lost@1 stop=silent@1 stop=slow@0 release=silent@1
begin -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; exec sleep 100'
until_true grep -q "^stop 0$" asked
grep -q "^lu: node n1 is lost, with VM lu-1$" err || fail "why it ends is told when it has ended"
kill -0 $pid || fail "it does not wait for the stop"
rc=0
wait $pid || rc=$?
expect "a lost node" $rc 1
expect "said once" "$(cat err)" "lu: node n1 is lost, with VM lu-1"
expect "released" "$(grep release asked)" "release 0"
wisp cluster list | grep -q "^lu  *ended" || fail "what the lost node has is forgotten"
start_nodes 2
wisp cluster stop lu
expect "swept" "$(grep release asked)" "release 0,1"
cleaned
start_nodes 2 start=dies@0
refuse 1 "Kernel panic" run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
start_nodes 1
stop_nodes
refuse 1 "nothing answers at $TMP/socket" run --nodes n0@127.0.0.1 lu.yaml

# -------- signals --------

start_nodes 2
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'trap "echo heard; exit 5" INT; echo runs; while :; do sleep 0.1; done'
kill -INT $pid
rc=0
wait $pid || rc=$?
expect "a first ^C" "$rc $(tail -n 1 out)" "5 heard"
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'trap "" INT; echo runs; while :; do sleep 0.1; done'
kill -INT $pid
sleep 0.3
kill -INT $pid
rc=0
wait $pid || rc=$?
expect "a second ^C" $rc 130
cleaned
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
expect "list" "$(wisp cluster list --names)" lu
wisp cluster show lu | grep -q "lu-1 .* n1 .* ready" || fail "wisp cluster show does not say where lu-1 is"
rc=0
expect "exec" "$(echo in | wisp cluster exec lu-1 -- sh -c 'cat; exit 5' || echo "code $?")" "$(printf 'in\ncode 5')"
expect "exec in the first" "$(wisp cluster exec lu echo there)" there
expect "the way" "$(grep connect asked | tail -n 2 | cut -d' ' -f3 | tr '\n' ' ')" "lu-1 lu-0 "
head -c 3000000 /dev/urandom >file
wisp cluster cp -q file "lu-1:$TMP/copied"
wisp cluster cp -q "lu:$TMP/copied" back
cmp file back
refuse 126 "there is no cluster lx" wisp cluster exec lx-1 true
refuse 126 "cluster lu has no VM lu-7" wisp cluster exec lu-7 true
refuse 1 "runs already" run --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml
kill -KILL $pid
wait $pid || :
cleaned # a lost terminal ends it

# -------- detached --------

expect "detach" "$(run -q -d --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo early; sleep 1.5; echo late; exit 3')" lu
until_true sh -c '[ "$(wisp cluster logs lu)" = early ]'
rc=0
wisp cluster attach lu >out </dev/null || rc=$?
expect "attached" "$rc $(tr '\n' ' ' <out)" "3 early late "
expect "its record" "$(wisp cluster list --json | python3 -c 'import json,sys; print([(c["state"], c["end"]["code"]) for c in json.load(sys.stdin)])')" \
	"[('ended', 3)]"
expect "its logs" "$(wisp cluster logs lu | tail -n 1)" late
wisp cluster stop lu
expect "forgotten" "$(wisp cluster list)" ""
refuse 1 "there is no cluster lu" wisp cluster show lu

run -q -d --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sleep 100 >/dev/null
wisp cluster stop lu
expect "stopped" "$(wisp cluster list)" ""
cleaned

# ^C before its name is told ends it.
start_nodes 2 start=never@0
launch -d --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sleep 100
until_true grep -q "^start 0" asked
kill -INT $pid
rc=0
wait $pid || rc=$?
expect "a start that is given up" "$rc $(cat out)" "130 "
until_true grep -q "^release" asked
wisp cluster stop lu
cleaned
start_nodes 2

# wisp cluster detach lets the terminal go.
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 1; echo over'
wisp cluster detach lu
rc=0
wait $pid || rc=$?
expect "detached" $rc 0
until_true sh -c 'wisp cluster list | grep -q "ended.*exit code 0"'
refuse 1 "cluster lu has ended" wisp cluster checkpoint lu
wisp cluster stop lu

# -------- the coordinator is killed; the daemon comes and goes --------

start_nodes 2 facts=full
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
coordinator=$(wisp cluster show lu --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
kill -KILL "$coordinator"
rc=0
wait $pid || rc=$?
expect "no coordinator" $rc 1
grep -q "the coordinator of cluster lu has died" err || fail "nobody says that the coordinator has died"
wisp cluster list | grep -q "^lu  *lost" || fail "it is not shown as lost"
expect "again" "$(run -q --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml </dev/null)" "of the environment"
expect "what the dead one had" "$(grep -e release -e facts -e reserve asked | tail -n 5 | cut -d' ' -f1 | tr '\n' ' ')" \
	"release facts reserve reserve release "
expect "swept" "$(wisp cluster list)" ""

begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'trap "echo heard; exit 6" INT; echo runs; while :; do sleep 0.1; done'
stop_nodes
rm -f "$TMP/socket" # as wispd does, when it is to end
until_true grep -q "the way to the program is lost" err
sleep 1
start_nodes 2
sleep 2
kill -INT $pid
rc=0
wait $pid || rc=$?
expect "a daemon that comes back" "$rc $(tail -n 1 out)" "6 heard"
cleaned
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
stop_nodes
until_true grep -q "the daemon of this node is gone" err
rc=0
wisp cluster stop lu 2>err.stop || rc=$?
expect "what it had cannot be ended" "$rc $(grep -c "what is left of cluster lu: no wispd runs on this node" err.stop)" "1 1"
rc=0
wait $pid || rc=$?
expect "no daemon" $rc 143
grep -q "ends with their grace time" err || fail "nobody says what becomes of the nodes"
start_nodes 2
wisp cluster stop lu
expect "what it had" "$(grep -c release asked)" 1
expect "nothing left" "$(wisp cluster list)" ""

# -------- checkpoints --------

start_nodes 2 release=keep
begin -l --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; until [ -e "$0" ]; do sleep 0.1; done; echo over; exit 9' "$TMP/go"
wisp cluster checkpoint lu --to saved --live >report
grep -q "^checkpoint 1 in $TMP/saved: .* skew .* longest pause 5.0 ms" report || fail "the checkpoint does not say what it took"
grep -q "^VM .* TCP SENT AGAIN IN 1\.[0-9] s$" report || fail "it does not say how long TCP was looked at"
grep -q "^lu-0  *n0  *+[0-9.]* ms  *5.0 ms  1 of 100 segments$" report || fail "it does not tell of lu-0"
grep -q "^lu-1  *n1  *+[0-9.]* ms  *5.0 ms  2 of 100 segments$" report || fail "it does not tell of lu-1"
wisp checkpoint show saved | grep -q "^tcp  *3 of 200 segments sent again within 1\.. s$" || fail "the manifest does not tell of TCP"
expect "steps" "$(grep save asked | tr '\n' ' ')" "save begin 0,1 save cut 0,1 save resume 0,1 save commit 0,1 "
wisp checkpoint list saved | grep -q "^ *1  lu  *2 " || fail "wisp checkpoint list does not show it"
wisp cluster suspend lu --to saved --json >suspended
expect "the next" "$(python3 -c 'import json; s = json.load(open("suspended")); print(s["checkpoint"], s["vms"]["lu-1"]["node"], "tcp" in s)')" "2 n1 False"
wisp cluster show lu | grep -q "lu-1 .* paused" || fail "a suspended VM is not paused"
wisp cluster resume lu
wisp cluster show lu | grep -q "lu-1 .* ready" || fail "a resumed VM does not run"
wisp cluster stop lu
wait $pid || :
cleaned

# Its program is where it was, and so is its output.
cp -R saved then
start_nodes 3
wisp cluster restart saved --at 1 -q --socket "$TMP/socket" --nodes 'n[1-2]@127.0.0.[2-3]' >out 2>err </dev/null &
pid=$!
until_true sh -c 'wisp cluster show lu | grep -q "lu-0 .* n1 .* ready"'
grep -q "^restore 1,2" asked || fail "nothing was restored"
until_true sh -c 'wisp cluster show lu | grep -q " run$"'
truncate -s 100 saved/checkpoint-2.json # which is in nobody's way
wisp cluster checkpoint lu --to saved | grep -q "^checkpoint 3 in" || fail "a restarted job does not go on with its folder"
grep -q "left alone: $TMP/saved/checkpoint-2.json is damaged" "$WISP_RUN/job/lu/log" || fail "nobody says which manifest is damaged"
mkdir "$TMP/elsewhere"
refuse 1 "a cluster that was restarted from $TMP/saved still runs" \
	env WISP_RUN="$TMP/elsewhere" wisp cluster restart saved -q --socket "$TMP/socket" --nodes 'n[1-2]@127.0.0.[2-3]'
touch go
rc=0
wait $pid || rc=$?
expect "a restarted program" "$rc $(tail -n 1 out)" "9 lu-0: over"
cleaned

# What is left of it ends first, and who does not answer has to be named.
back="wisp cluster restart then --at 1 -q --socket $TMP/socket"
start_nodes 3 join=gone@2
refuse 1 "and may have them yet: no route to it" $back --nodes 'n2@127.0.0.3'
expect "what was asked" "$(grep -v left asked | tail -n 1)" "join 0,1,2"
refuse 1 "no VM was there" $back --lost n7 --nodes 'n2@127.0.0.3'
start_nodes 3 release=fail@1
refuse 1 "say so with --lost n1" $back --nodes 'n[0-2]@127.0.0.[1-3]'
expect "nothing was begun" "$(grep -c -e reserve -e restore asked)" 0
start_nodes 2 release=keep
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
wisp cluster checkpoint lu --to again >/dev/null
refuse 1 "still runs on this machine: --stop" wisp cluster restart again --socket "$TMP/socket" --nodes n0,n1
wisp cluster restart again --stop -d -q --socket "$TMP/socket" --nodes n0@127.0.0.1,n1@127.0.0.2
rc=0
wait $pid || rc=$?
expect "the earlier one was stopped" $rc 143
expect "one is left" "$(wisp cluster list --names)" lu
wisp cluster stop lu
cleaned
start_nodes 3
wisp cluster restart again -d -q --lost n1 --socket "$TMP/socket" --nodes n0@127.0.0.1,n2@127.0.0.3
expect "who was asked" "$(grep -e release -e reserve asked | tr '\n' ' ')" "release 0,1 reserve 0 reserve 1 "
wisp cluster stop lu
cleaned

# A node that had none of the VMs in the checkpoint may have got one since.
start_nodes 3 release=keep
run -q -d --name lu --nodes 'n[0-2]@127.0.0.[1-3]' none.yaml >/dev/null
wisp cluster checkpoint lu --to moved-since >/dev/null
wisp cluster migrate lu lu-0 --to n2 >/dev/null
wisp cluster stop lu
cleaned
start_nodes 3 join=gone@2
on="wisp cluster restart moved-since -d -q --socket $TMP/socket --nodes n1@127.0.0.2,n0@127.0.0.1"
refuse 1 "say so with --lost n2" $on
expect "nothing was begun" "$(grep -c -e reserve -e restore asked)" 0
$on --lost n2
wisp cluster stop lu
cleaned
start_nodes 3
$on
expect "who was asked" "$(grep -e release -e reserve asked | tr '\n' ' ')" "release 0,1,2 reserve 0 reserve 1 "
wisp cluster stop lu
cleaned

# What was used of the walltime counts.
printf 'vms: 2\nwalltime: 9s\n' >short.yaml
start_nodes 2
run -q -d --name short --nodes n0@127.0.0.1,n1@127.0.0.2 short.yaml >/dev/null
sleep 4
wisp cluster checkpoint short --to short-saved >/dev/null
wisp cluster stop short
cleaned
used=$(python3 -c 'import json; print(json.load(open("short-saved/checkpoint-1.json"))["report"]["used_ms"])')
[ "$used" -ge 4000 ] || fail "used of the walltime: $used ms"
wisp cluster restart short-saved -d -q --socket "$TMP/socket" --nodes n0@127.0.0.1,n1@127.0.0.2
began=$(date +%s%N)
until_true sh -c 'wisp cluster list | grep -q "^short  *ended.*its walltime is over"'
[ $((($(date +%s%N) - began) / 1000000)) -lt 7000 ] || fail "a restart begins its walltime anew"
wisp cluster stop short
cleaned

# On one node, while another one had some: it is asked, and has no part in what goes on.
printf 'vms: 2\nvms-per-node: 2\n' >lu.two
start_nodes 2 release=keep
run -q -d --name lu --nodes n0@127.0.0.1,n1@127.0.0.2 lu.two -- sh -c 'echo runs; sleep 100' >/dev/null
wisp cluster checkpoint lu --to two >/dev/null
wisp cluster stop lu
cleaned
start_nodes 2
wisp cluster restart two -d -q --socket "$TMP/socket" --nodes n0@127.0.0.1
expect "who was asked" "$(grep -e release -e reserve -e network asked | tr '\n' ' ')" "release 0,1 reserve 0 network 0 "
wisp cluster checkpoint lu --to two >/dev/null
expect "nodes that may have its VMs" "$(python3 -c 'import json; print(*json.load(open("two/checkpoint-2.json"))["report"]["spec"]["nodes"])')" "n0@127.0.0.1"
refuse 1 "no node has room for VM lu-0" wisp cluster migrate lu lu-0
refuse 1 "n1: it is not one of --nodes" wisp cluster migrate lu lu-0 --to n1
wisp cluster stop lu
cleaned

for step in begin cut resume commit; do
	start_nodes 2 save-$step=fail@1
	begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
	refuse 1 "step $step: node n1: a disk has failed" wisp cluster checkpoint lu --to "$TMP/failed"
	expect "$step fails" "$(grep save asked | tail -n 1)" "save abort 0,1"
	expect "$step failed" "$(ls failed)" ""
	wisp cluster stop lu
	wait $pid || :
done
# One that somebody interrupts is given up, at any step.
for step in begin cut commit; do
	start_nodes 2 save-$step=silent@1
	begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
	wisp cluster checkpoint lu --to "$TMP/failed" >report 2>&1 &
	command=$!
	until_true grep -q "save $step 0,1" asked
	kill -INT $command
	rc=0
	wait $command || rc=$?
	expect "exit code of what was interrupted" $rc 1
	grep -q "it was given up" report || fail "$step: $(cat report)"
	expect "$step is interrupted" "$(grep save asked | tail -n 1)" "save abort 0,1"
	expect "$step was interrupted" "$(ls failed)" ""
	wisp cluster show lu | grep -q "lu-1 .* ready" || fail "what was interrupted is not over"
	wisp cluster stop lu
	wait $pid || :
done
# VMs that were to stay paused run on when there is no checkpoint in the end.
start_nodes 2 save-commit=bad@1
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
refuse 1 "digest is not sha256:" wisp cluster suspend lu --to "$TMP/failed"
expect "they go on" "$(grep -v left asked | tail -n 1)" "resume 0,1"
wisp cluster show lu | grep -q "lu-1 .* ready" || fail "a VM is paused, and nothing was saved"
expect "suspend failed" "$(ls failed/checkpoint-* 2>/dev/null)" ""
wisp cluster stop lu
wait $pid || :
# Also those of a node that had committed when another one failed: to give up is nothing there.
start_nodes 2 save-commit=fail@1
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
refuse 1 "step commit: node n1: a disk has failed" wisp cluster suspend lu --to "$TMP/failed"
expect "half of them go on" "$(grep -v left asked | tail -n 2 | tr '\n' ' ')" "save abort 0,1 resume 0,1 "
wisp cluster show lu | grep -q "lu-0 .* ready" || fail "a VM is paused, and another one failed"
wisp cluster stop lu
wait $pid || :
start_nodes 3
refuse 2 "give the folder" wisp cluster restart
refuse 2 'compression "bz2" is not one of none, lz4, zstd' wisp cluster checkpoint lu --compress bz2
refuse 1 "has no checkpoint of a whole job" wisp cluster restart "$TMP/failed"
printf 'vms: 2\ncheckpoint: {interval: 1s, directory: %s}\n' "$TMP/in-vain" >clock.yaml
start_nodes 3 save-begin=fail@1
begin --nodes n0@127.0.0.1,n1@127.0.0.2 clock.yaml -- sh -c 'echo runs; sleep 100'
until_true grep -q "checkpoint: step begin: node n1: a disk has failed; it is tried again in 1 s" err
wisp cluster stop clock
wait $pid || :
start_nodes 3
printf 'vms: 2\ncheckpoint: {interval: 1s, keep: 2, directory: %s}\n' "$TMP/clock" >clock.yaml
begin --nodes n0@127.0.0.1,n1@127.0.0.2 clock.yaml -- sh -c 'echo runs; sleep 100'
until_true test -e clock/checkpoint-3.json
wisp cluster stop clock
wait $pid || :
refuse 1 "clock has checkpoints of an earlier job of cluster clock" run --nodes n0@127.0.0.1,n1@127.0.0.2 clock.yaml -- true
expect "what is kept" "$(ls clock | grep -c checkpoint)" 2

# A checkpoint is there before old ones go, here with a slow disk; only another one waits for that.
printf 'vms: 2\ncheckpoint: {keep: 1}\n' >keep.yaml
start_nodes 3
env LD_PRELOAD="$WISP_BUILD/tests/broken-disk.so" BROKEN_CALL=sync BROKEN_PATH="$TMP/pruned" BROKEN_FROM=5 BROKEN_DELAY=3000 \
	wisp run -q -d --name keep --socket "$TMP/socket" --image tiny --nodes 'n[0-2]@127.0.0.[1-3]' keep.yaml >/dev/null
wisp cluster checkpoint keep --to pruned >/dev/null
before_ns=$(date +%s%N)
wisp cluster checkpoint keep --to pruned >/dev/null
[ $((($(date +%s%N) - before_ns) / 1000000)) -lt 3000 ] || fail "a checkpoint waits until old ones are removed"
wisp cluster migrate keep keep-0 --to n2 >/dev/null || fail "VMs do not move while old checkpoints are removed"
wisp cluster checkpoint keep --to pruned >third 2>&1 || fail "a checkpoint does not wait until old ones are removed: $(cat third)"
grep -q "^checkpoint 3 in" third || fail "not the third checkpoint: $(cat third)"
wisp cluster stop keep
cleaned
start_nodes 3

# A folder is of one job.
ls clock >before
begin --name clock --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
refuse 1 "checkpoints of an earlier job of cluster clock" wisp cluster checkpoint clock --to clock
wisp cluster stop clock
wait $pid || :
begin --nodes n0@127.0.0.1,n1@127.0.0.2 lu.yaml -- sh -c 'echo runs; sleep 100'
refuse 1 "checkpoints of cluster clock: give cluster lu another folder" wisp cluster checkpoint lu --to clock
expect "what it has" "$(ls clock)" "$(cat before)"
wisp cluster stop lu
wait $pid || :

# -------- VMs move --------

printf 'vms: 2\n' >mover.yaml
# move BEHAVIOUR...: a cluster of two VMs on three nodes, whose first one moves to the third
move() {
	start_nodes 3 "$@"
	begin --nodes 'n[0-2]@127.0.0.[1-3]' --name mover mover.yaml -- sh -c 'echo runs; cat /proc/uptime >/dev/null; while [ ! -e "$0" ]; do sleep 0.1; done; exit 5' "$TMP/may-end"
	rc=0
	wisp cluster migrate mover mover-0 --to n2 --bandwidth 100M --json >moved 2>err.move || rc=$?
}
place_of_first() {
	wisp cluster show mover --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["vms"][0]["node"])'
}
end_move() {
	touch may-end
	rc=0
	wait "$pid" || rc=$?
	expect "exit code of what has not noticed" $rc 5
	rm may-end
	cleaned
}

move
expect "migrate" "$rc $(python3 -c 'import json; v = json.load(open("moved"))["vms"][0]; print(v["from"], v["to"], v["state"], v["report"])')" "0 n0 n2 moved {'rounds': 2}"
expect "its place" "$(place_of_first)" n2
grep -q '^release 0$' asked || fail "the node that it left has not been released"
rc=0
wisp cluster migrate mover mover-0 --to n2 2>err.move || rc=$?
expect "where it is already" "$rc $(grep -c already err.move)" "1 1"
end_move

# One that somebody interrupts while its nodes get ready gives back what they have.
for op in reserve network; do
	start_nodes 3
	begin --nodes 'n[0-2]@127.0.0.[1-3]' --name mover mover.yaml -- sh -c 'echo runs; while [ ! -e "$0" ]; do sleep 0.1; done; exit 5' "$TMP/may-end"
	echo "$op=silent@2" >how
	wisp cluster migrate mover mover-0 --to n2 2>err.move &
	command=$!
	until_true sh -c "tail -n 1 asked | grep -q '^$op .*2'"
	kill -INT $command
	rc=0
	wait $command || rc=$?
	expect "exit code of what was interrupted" $rc 1
	grep -q "the migration was given up" err.move || fail "$op: $(cat err.move)"
	expect "what follows $op" "$(tail -n 1 asked)" "release 2"
	expect "its place" "$(place_of_first)" n0
	rm how
	wisp cluster migrate mover mover-0 --to n2 >/dev/null || fail "it cannot move any more"
	expect "its place" "$(place_of_first)" n2
	end_move
done

start_nodes 3 start=drains@0
begin --nodes 'n[0-2]@127.0.0.[1-3]' --name mover mover.yaml -- sh -c 'echo runs; while [ ! -e "$0" ]; do sleep 0.1; done; exit 5' "$TMP/may-end"
gone_from_first() {
	[ "$(place_of_first)" = n2 ]
}
until_true gone_from_first
end_move
start_nodes 3 start=drains@0 reserve=fail@2
begin --nodes 'n[0-2]@127.0.0.[1-3]' --name mover mover.yaml -- sh -c 'echo runs; while [ ! -e "$0" ]; do sleep 0.1; done; exit 5' "$TMP/may-end"
until_true grep -q "VMs stay at nodes that drain: reserve: node n2: no reserve here" err
expect "its place at a node that drains" "$(place_of_first)" n0
end_move

move reserve=fail@2
expect "a node that has no room" "$rc $(grep -c 'no reserve here' err.move)" "1 1"
expect "its place" "$(place_of_first)" n0
grep -q '^send' asked && fail "it was sent all the same"
end_move

move send=fail@0
expect "a VM that does not move" "$rc $(python3 -c 'import json; print(json.load(open("moved"))["vms"][0]["state"])')" "1 stayed"
expect "its place" "$(place_of_first)" n0
grep -q '^release 2$' asked || fail "the node that it did not come to has not been released"
end_move

move send=gone@0
expect "a source that never calls" "$rc $(python3 -c 'import json; v = json.load(open("moved"))["vms"][0]; print(v["state"], v["error"])')" "1 stayed node n0: it runs here"
expect "its place" "$(place_of_first)" n0
end_move

move send=open@0
expect "a hand-over that is asked for again" "$rc $(place_of_first)" "0 n2"
end_move

# -------- the checkpoint of the beginning --------

wait $slow_save || fail "a checkpoint that takes more than a minute: $(cat slow-report)"
grep -q "^checkpoint 1 in " slow-report || fail "the checkpoint that took a minute: $(cat slow-report)"
slow cluster stop slow
