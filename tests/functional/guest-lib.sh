# SPDX-License-Identifier: Apache-2.0
# For tests of Linux guests; behind lib.sh. These tests run as a whole where Linux guests run.

# inside SCRIPT: runs the script again inside the emulated node of the shared lab, if there is one.
inside() {
	if [ -n "${WISP_TEST_LAB-}" ]; then
		wisp image build "$TOP/images/minimal.yaml" -o minimal
		in_lab env WISP_TEST_LAB= "$1"
		exit
	fi
	wisp doctor kvm >/dev/null || skip "KVM cannot run Linux here, and there is no lab"
	[ -n "${WISP_RUN-}" ] || export WISP_RUN="$TMP/run"
	at_exit 'wisp vm stop --kill $(wisp vm list --names) >/dev/null 2>&1 || true'
}

# start_vm NAME [OPTION...]
start_vm() {
	name=$1
	shift
	wisp vm start "$name" --image minimal "$@"
}

# guest NAME COMMAND...
guest() {
	name=$1
	shift
	wisp vm exec "$name" -- "$@"
}
