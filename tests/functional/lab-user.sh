#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A lab of an ordinary user, in a user namespace. As root it is that of an account made for the
# test and removed again; otherwise that of whoever runs it. Alone: tests/run lab-user
. "$(dirname "$0")/lib.sh"
[ -e /dev/net/tun ] || skip "no /dev/net/tun"
command -v qemu-system-x86_64 >/dev/null || skip "QEMU is not installed"

# What the user does; $1 is a folder of theirs.
cat >"$TMP/as-user" <<'EOF'
set -eu
cd "$1"
export WISP_RUN="$1/run" WISP_CACHE="$1/cache"
mkdir -p share
trap 'wisp lab down 2>/dev/null || :' EXIT
[ "$(id -u)" != 0 ]
wisp lab up --ssh --memory 1G --share share
[ "$(wisp lab exec node1 id -u)" = 0 ]
wisp lab exec node1 -- sh -c 'test -w /dev/kvm && cat /etc/passwd >/dev/null && pwd >share/where'
[ "$(cat share/where)" = "$1" ]
[ -O share/where ]
# Root in the node is this user here: nothing more can be read or written.
wisp lab exec node1 -- sh -c '! cat /etc/shadow >/dev/null 2>&1'
wisp lab exec node1 -- sh -c 'mkdir /tmp/below && mount -t virtiofs hostroot /tmp/below'
wisp lab exec node1 -- sh -c "! touch /tmp/below$1/was-here 2>/dev/null"
[ "$(wisp lab exec node1 -- ssh -n node1 id -u)" = 0 ]
wisp lab net -- ip -o address | grep -q 10.77.0.1/24
wisp lab down
[ -z "$(ls "$WISP_RUN/lab")" ]
trap - EXIT
echo done
EOF

if [ "$(id -u)" != 0 ]; then
	unshare -Urn true 2>/dev/null || skip "user namespaces are not allowed here"
	[ -w /dev/net/tun ] || skip "/dev/net/tun may not be opened"
	expect result "$(sh "$TMP/as-user" "$TMP" | tail -n 1)" done
	exit
fi

user=wisp-test-$$
runuser -u nobody -- unshare -Urn true 2>/dev/null || skip "user namespaces are not allowed here"
runuser -u nobody -- test -r "$TOP/meson.build" || skip "the tree is not readable for others"
useradd --create-home "$user"
# --force: a zombie that the machine's init has not collected yet is no reason to keep it.
at_exit "userdel --force --remove $user 2>/dev/null"
home=$(getent passwd "$user" | cut -d: -f6)
chmod 755 "$TMP"
# The kernel package is taken from our cache, when there is one, not from the network.
cache=${WISP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wisp}
if [ -d "$cache/kernel" ]; then
	mkdir "$home/cache"
	cp -r "$cache/kernel" "$home/cache/kernel"
	chown -R "$user:" "$home/cache"
fi
# Some machines keep the tap driver to root. In a mount namespace of its own, everybody may.
mknod -m 666 "$TMP/tun" c 10 200
expect result "$(unshare --mount sh -c 'mount --bind "$1" /dev/net/tun
	exec runuser -u "$2" -- env HOME="$3" PATH="$PATH" sh "$4" "$3"' \
	sh "$TMP/tun" "$user" "$home" "$TMP/as-user" | tail -n 1)" done
expect "processes left" "$(pgrep --runstates D,R,S,T -u "$user" || :)" ""
