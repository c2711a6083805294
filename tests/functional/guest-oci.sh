#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A container image boots: an OCI layout of our own making (of the root of the minimal image, as
# no registry is asked) becomes an image, a VM runs it, and its programs, files and steps are there.
# Alone: tests/run guest-oci
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest-lib.sh"

# The node sees the user's images, so it is one of those; all else is ours.
image=guest-oci-test
build() {
	for tool in skopeo umoci sqfstar unsquashfs unshare; do
		command -v $tool >/dev/null || skip "$tool is not installed"
	done
	wisp image build -q "$TOP/images/minimal.yaml" -o minimal
	minimal=$(wisp image show minimal --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["folder"])')
	cache=${WISP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wisp}
	mkdir -p "$TMP/cache" "$cache/kernel"
	ln -s "$cache/kernel" "$TMP/cache/kernel"
	cd "$TMP"
	unsquashfs -q -n -d tree "$minimal/root.squashfs" >/dev/null
	echo layers >tree/etc/from-container
	echo gone >tree/etc/gone
	tar -C tree -cf layer.tar .
	rm -r tree
	umoci init --layout layout
	umoci new --image layout:v1
	umoci raw add-layer --image layout:v1 layer.tar
	rm layer.tar
	# A second layer takes a file away and puts another there.
	mkdir -p tree/etc
	echo second >tree/etc/second
	: >tree/etc/.wh.gone
	tar -C tree -cf layer.tar .
	umoci raw add-layer --image layout:v1 layer.tar
	echo data >data
	cat >box.yaml <<Y
base: "oci:oci:$TMP/layout:v1"
files: {/srv/data: {from: data}}
steps: ["cat /etc/from-container /etc/second /srv/data >/srv/said"]
Y
	at_exit "wisp image remove $image >/dev/null 2>&1"
	WISP_CACHE=$TMP/cache wisp image build -q box.yaml -o $image
	cd "$TOP"
}

if [ -z "${WISP_TEST_INSIDE:-}" ]; then
	[ -n "${WISP_TEST_LAB-}" ] || wisp doctor kvm >/dev/null ||
		skip "KVM cannot run Linux here, and there is no lab"
	build
	if [ -n "${WISP_TEST_LAB-}" ]; then
		rc=0
		in_lab env WISP_TEST_LAB= WISP_TEST_INSIDE=1 "$0" || rc=$?
		exit $rc
	fi
fi
inside "$0"
wisp vm start box --image $image
expect "what the build left" "$(guest box cat /srv/said | tr '\n' ' ')" "layers second data "
guest box test ! -e /etc/gone || fail "the second layer took nothing away"
expect "who runs" "$(guest box id -un)" root
expect "the system" "$(guest box sh -c '. /etc/os-release; echo $ID')" debian
guest box sh -c 'echo more >/srv/more && cat /srv/more' | grep -qx more || fail "the root takes no file"
guest box sh -c 'test -e /proc/self/status && test -c /dev/null && test -d /sys/class' ||
	fail "no proc, dev or sys"
wisp vm stop box >/dev/null
exit 0
