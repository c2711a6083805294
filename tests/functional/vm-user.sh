#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An ordinary user who may open /dev/kvm starts VMs on a private network of their own, apart from
# other users' VMs of the same names. Alone: tests/run vm-user
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"
[ "$(id -u)" = 0 ] || skip "must be root, to become an ordinary user"
[ -n "${WISP_TEST_NODE:-}" ] || skip "changes /dev/kvm: only in a lab (tests/run vm-user)"

chmod 666 /dev/kvm /dev/net/tun
images=$(dirname "$(wisp image show minimal --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["folder"])')")
mkdir "$TMP/home" "$TMP/user"
cp -r "$images" "$TMP/home/images"
cp -r "$WISP_BUILD/src/cli/wisp" "$WISP_BUILD/src/vmm/wisp-vmm" "$TMP/home/"
chmod 755 "$TMP"
chown -R nobody "$TMP/home" "$TMP/user"

as_user() {
	setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH="$PATH" WISP_LIBEXECDIR="$TMP/home" \
		WISP_RUN="$TMP/user" WISP_HOME="$TMP/home" HOME="$TMP/home" "$TMP/home/wisp" "$@"
}
at_exit 'as_user vm stop --all --kill >/dev/null 2>&1'

wisp vm start a --image minimal --memory 256M >/dev/null
as_user vm start a b --image minimal --memory 256M
expect "the user's VMs" "$(as_user vm list --names | tr '\n' ' ')" "a b "
expect "root's" "$(wisp vm list --names | tr '\n' ' ')" "a "
expect "who runs it" "$(stat -c %u "/proc/$(as_user vm list --json | python3 -c 'import json, sys
print(json.load(sys.stdin)[0]["pid"])')")" 65534
expect "in the guest" "$(as_user vm exec a -- id -u)" 0
as_user vm exec a -- busybox ping -c 1 -W 10 b >/dev/null || fail "a does not reach b"
expect "copy" "$(as_user vm cp a:/etc/hostname "$TMP/user/x" && cat "$TMP/user/x")" a
as_user vm stats a >/dev/null
as_user vm stop a b >/dev/null
expect "root's go on" "$(wisp vm exec a hostname)" a
wisp vm stop a >/dev/null
expect "files of the user" "$(find "$TMP/user" -mindepth 2 ! -name x)" ""
expect_nothing_left "after stop"
