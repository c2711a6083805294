#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A lab of two nodes: names, network, KVM, exec in all its ways, shares and disks, and its end.
# Alone: tests/run lab-basic
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab-lib.sh"

mkdir "$TMP/share"
truncate -s 16M "$TMP/disk"
refuse 1 "no lab lab runs" lab status --name lab
refuse 126 "no lab lab runs" lab exec node1 true
lab down 2>/dev/null || fail "down without a lab is no error"

start=$(date +%s)
lab up --nodes 2 --ssh --memory 2G --hugepages 8 --nvme --share "$TMP/share" \
	--disk "node2:$TMP/disk"
echo "two nodes after $(($(date +%s) - start)) s"
refuse 1 "runs already" lab up

expect names "$(lab status --names | tr '\n' ' ')" "node1 node2 "
expect state "$(lab status --json | python3 -c '
import json, sys
for lab in json.load(sys.stdin):
    print(lab["name"], lab["running"], [(n["name"], n["running"]) for n in lab["nodes"]])
')" "lab True [('node1', True), ('node2', True)]"

echo "in the node"
expect hostname "$(lab exec node2 hostname)" node2
expect cpus "$(lab exec node1 nproc)" 1
expect hugepages "$(lab exec node1 cat /proc/sys/vm/nr_hugepages)" 8
expect devices "$(lab exec node1 -- sh -c \
	'for d in kvm net/tun vhost-net vhost-vsock vfio/vfio; do [ -w /dev/$d ] && echo $d; done' |
	tr '\n' ' ')" "kvm net/tun vhost-net vhost-vsock vfio/vfio "
expect "cgroup v2" "$(lab exec node1 stat -f -c %T /sys/fs/cgroup)" cgroup2fs
expect NVMe "$(lab exec node1 -- sh -c 'cat /sys/bus/pci/devices/*/sriov_totalvfs')" 2
expect disk "$(lab exec node2 cat /sys/block/vda/size)" 32768
lab exec node1 wisp doctor --json >"$TMP/doctor"
python3 - "$TMP/doctor" <<'EOF' || fail "wisp doctor in the node"
import json, sys
doctor = json.load(open(sys.argv[1]))
facts = {f["name"]: f["state"] for f in doctor["facts"]}
assert doctor["kvm"]["verdict"] == "hardware", doctor["kvm"]
for name in "kvm", "iommu", "vhost-net", "vhost-vsock", "cgroup2", "userfaultfd", "hugepages":
    assert facts[name] == "ok", (name, facts[name])
EOF

echo "the nodes reach each other, by name"
lab exec node1 -- busybox timeout 60 busybox nc -l -p 7777 >"$TMP/heard" &
listener=$!
wait_for 30 lab exec node2 -- sh -c 'echo there | busybox nc -w 5 node1 7777' ||
	fail "node2 does not reach node1"
wait $listener || fail "node1 heard nothing"
expect "said by node2" "$(cat "$TMP/heard")" there
expect "ssh to node2" "$(echo in | lab exec node1 -- ssh node2 'hostname; cat')" "node2
in"
expect "ssh to node1" "$(lab exec node2 -- ssh -n node1 hostname)" node1
rc=0
lab exec node1 -- ssh -n node2 exit 7 || rc=$?
expect "exit code through ssh" "$rc" 7

echo "the host's files: below, not to be written"
expect "working directory" "$(cd "$TOP" && lab exec node1 pwd)" "$TOP"
lab exec node1 -- sh -c 'echo changed >/etc/hostname && rm -f /etc/passwd'
[ -s /etc/passwd ] || fail "a node wrote to this machine's files"
lab exec node1 -- sh -c 'mkdir /tmp/below && mount -t virtiofs hostroot /tmp/below &&
	! touch /tmp/below/wisp-was-here 2>/dev/null' || fail "the node can write below the overlay"
lab exec node2 -- sh -c "echo from node2 >'$TMP/share/result'"
expect share "$(cat "$TMP/share/result")" "from node2"
expect "share in the other node" "$(lab exec node1 cat "$TMP/share/result")" "from node2"

echo "files that change here are seen"
mkdir "$WISP_BUILD/lab-test.$$"
at_exit "rm -r '$WISP_BUILD/lab-test.$$'"
for i in 1 2 3; do
	printf '#!/bin/sh\necho %s\n' "$i" >"$WISP_BUILD/lab-test.$$/new"
	chmod +x "$WISP_BUILD/lab-test.$$/new"
	mv "$WISP_BUILD/lab-test.$$/new" "$WISP_BUILD/lab-test.$$/script"
	expect "version" "$(lab exec node1 "$WISP_BUILD/lab-test.$$/script")" "$i"
	expect "its text" "$(lab exec --fresh node1 tail -n 1 "$WISP_BUILD/lab-test.$$/script")" \
		"echo $i"
done

echo "exec: codes, streams, several at once"
rc=0
lab exec node1 -- sh -c 'echo out; echo err >&2; exit 7' >"$TMP/out" 2>"$TMP/err" || rc=$?
expect "exit code" "$rc" 7
expect stdout "$(cat "$TMP/out")" out
expect stderr "$(cat "$TMP/err")" err
rc=0
lab exec node1 -- sh -c 'kill -KILL $$' || rc=$?
expect "killed" "$rc" 137
refuse 126 "no-such-program" lab exec node1 no-such-program
refuse 126 "no node node3" lab exec node3 true
refuse 2 "which node" lab exec
head -c 3000000 /dev/urandom >"$TMP/data"
expect "3 MB through" "$(lab exec node1 cat <"$TMP/data" | sha256sum)" "$(sha256sum <"$TMP/data")"
expect "variables" "$(lab exec -e A=1 -e B="2 3" node1 -- sh -c 'echo "$A $B"')" "1 2 3"
expect "the tty that was asked for" "$(lab exec --tty node1 -- tty </dev/null | tr -d '\r')" \
	/dev/pts/0
for i in 1 2 3 4 5 6; do
	lab exec "node$((i % 2 + 1))" -- sh -c "sleep 1; hostname; exit $i" >"$TMP/out.$i" &
	eval "pid$i=$!"
done
for i in 1 2 3 4 5 6; do
	rc=0
	eval "wait \$pid$i" || rc=$?
	expect "code of $i" "$rc" "$i"
	expect "output of $i" "$(cat "$TMP/out.$i")" "node$((i % 2 + 1))"
done

echo "the private network"
lab net -- ip -o address | grep -q "10.77.0.1/24" || fail "no bridge in lab net"
expect "devices in it" "$(lab net -- ip -br link | cut -d' ' -f1 | sort | tr '\n' ' ')" \
	"lo node1 node2 wisp0 "
if ip -o link | grep -q wisp0; then fail "the bridge is on this machine's network"; fi

lab down
expect_nothing_left "after down"
