#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Root's wispd and wisp-part together, with VMs of bare guests of two users: what their processes
# have and have not, ways out, records, kill -9 of part and daemon. In a mount namespace with users,
# a group and a /dev/kvm of its own, and a network namespace. Alone: tests/run node-part
. "$(dirname "$0")/bare-lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "needs root: parts become users"

chmod 711 "$TMP"
mkdir "$TMP/libexec" "$TMP/state" "$TMP/home" "$TMP/dev"
chmod 711 "$TMP/state"
for program in src/part/wisp-part src/vms/wisp-keeper src/node/wisp-node-helper src/vmm/wisp-vmm \
	src/mover/wisp-mover src/cli/wisp; do
	cp "$WISP_BUILD/$program" "$TMP/libexec"
done
cgroups=none
for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do
	if [ -w "$dir/cgroup.procs" ]; then cgroups=$dir; fi
done
{
	cat /etc/passwd
	echo "ann:x:7001:7001::$TMP/home/ann:/bin/sh"
	echo "bob:x:7002:7002::$TMP/home/bob:/bin/sh"
} >"$TMP/passwd"
{
	cat /etc/group
	echo "ann:x:7001:"
	echo "bob:x:7002:"
	echo "crew:x:7003:ann"
	echo "kvm-of-test:x:7004:"
} >"$TMP/group"
at_failure=logs
logs() {
	tail -n 40 "$TMP/log" "$TMP"/state/user/*/*.log 2>/dev/null
}
export WISP_LIBEXECDIR="$TMP/libexec" GUEST
unshare --mount --net sh -eu -c '
	ip link set lo up
	echo 1 >/proc/sys/net/ipv4/ip_forward
	mount -t tmpfs devices "$TMP/dev"
	mknod "$TMP/dev/kvm" c 10 232
	chown 0:7004 "$TMP/dev/kvm"
	chmod 660 "$TMP/dev/kvm"
	mount --bind "$TMP/dev/kvm" /dev/kvm
	mount --bind "$TMP/passwd" /etc/passwd
	mount --bind "$TMP/group" /etc/group
	exec timeout 200 python3 "$@"
' sh "$(dirname "$0")/${SCRIPT:-node-part}.py" "$WISP_BUILD/src/node/wispd" "$TMP/state" "$cgroups" "$TMP/home"
