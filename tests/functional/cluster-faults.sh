#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clusters of an ordinary user over two nodes with root's wispd each, and each process of them killed
# in each phase: some moments, or with WISP_FAULTS=all every one. Bare guests with a stand-in for their agents
# (tests/vmm-with-agent.c); a node is a network namespace. Alone: tests/run cluster-faults
. "$(dirname "$0")/bare-lib.sh"
command -v python3 >/dev/null || skip "no python3"
[ "$(id -u)" = 0 ] || skip "needs root, as the daemons of nodes are"
modprobe vxlan 2>/dev/null || :

chmod 711 "$TMP"
mkdir "$TMP/libexec" "$TMP/libexec/real" "$TMP/n0" "$TMP/n1" "$TMP/ann" "$TMP/etc"
chmod 711 "$TMP/n0" "$TMP/n1"
for program in src/part/wisp-part src/vms/wisp-keeper src/node/wisp-node-helper src/mover/wisp-mover \
	src/job/wisp-job src/agent/wisp-agent src/cli/wisp; do
	cp "$WISP_BUILD/$program" "$TMP/libexec"
done
cp "$WISP_BUILD/tests/vmm-with-agent" "$TMP/libexec/wisp-vmm"
cp "$WISP_BUILD/src/vmm/wisp-vmm" "$TMP/libexec/real"
cgroups=none
for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do
	if [ -w "$dir/cgroup.procs" ]; then cgroups=$dir; fi
done
at_failure=logs
logs() {
	tail -n 30 "$TMP"/*.log "$TMP"/n?/user/*/*.log "$TMP"/run/job/*/log 2>/dev/null
}
export WISP_LIBEXECDIR="$TMP/libexec" GUEST
# /etc is what the agents see of it: ann's, so that they can write what a program needs to know.
# shellcheck disable=SC2016
unshare --mount --net sh -eu -c '
	cp -a /etc/. "$TMP/etc"
	for file in passwd group hosts; do rm -f "$TMP/etc/$file"; cp "/etc/$file" "$TMP/etc/$file"; done
	echo "ann:x:7001:7001::$TMP/ann:/bin/sh" >>"$TMP/etc/passwd"
	echo "ann:x:7001:" >>"$TMP/etc/group"
	echo "kvm-of-test:x:7004:" >>"$TMP/etc/group"
	mkdir -p "$TMP/etc/wisp"
	chown 7001 "$TMP/etc" "$TMP/etc/wisp" "$TMP/etc/hosts"
	mount --bind "$TMP/etc" /etc
	mknod "$TMP/kvm" c 10 232
	chown 0:7004 "$TMP/kvm"
	chmod 660 "$TMP/kvm"
	mount --bind "$TMP/kvm" /dev/kvm
	ip link set lo up
	exec timeout -k 5 "${FAULTS_SECONDS:-280}" python3 "$@"
' sh "$(dirname "$0")/${SCRIPT:-cluster-faults}.py" "$WISP_BUILD/src/node/wispd" "$TMP" "$cgroups"
