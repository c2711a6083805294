# SPDX-License-Identifier: Apache-2.0
# For the tests of wisp vm: . "$(dirname "$0")/vm-lib.sh" after lib.sh. Runs the test in the
# node of the lab $WISP_TEST_LAB, or here where KVM runs Linux guests; VM_IMAGES names the images
# it needs. VMs of a test keep their state in a folder of their own.
if [ -z "${WISP_TEST_NODE:-}" ]; then
	for vm_image in ${VM_IMAGES:-minimal}; do
		wisp image build -q "$TOP/images/$vm_image.yaml" -o "$vm_image"
	done
	if [ -n "${WISP_TEST_LAB:-}" ]; then
		rc=0
		wisp lab exec -n "$WISP_TEST_LAB" -e WISP_TEST_NODE=1 -e WISP_BUILD="$WISP_BUILD" \
			-e WISP_TEST_LAB= -e TMPDIR=/tmp \
			${WISP_HOME:+-e "WISP_HOME=$WISP_HOME"} node1 -- "$0" || rc=$?
		exit $rc
	fi
	wisp doctor kvm >/dev/null || skip "KVM cannot run Linux here (tests/run NAME uses a lab)"
fi
WISP_RUN=$TMP/run
export WISP_RUN
at_exit 'wisp vm stop --all --kill >/dev/null 2>&1'

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	wait_end=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$wait_end" ] || return 1
		sleep 0.2
	done
}

# A program of perl that counts in /tmp/count, which is always whole. It takes no more of an emulated
# CPU than that: a shell would start two programs each time.
# shellcheck disable=SC2016,SC2034
COUNTS='for (my $i = 1; ; $i++) {
	open(my $next, ">", "/tmp/next") or die;
	print $next "$i\n";
	close($next);
	rename("/tmp/next", "/tmp/count");
	select(undef, undef, undef, 0.1);
}'

# The pids of our VMs' processes: keepers, greeters and wisp-vmm have our folder in their
# environment; so have we and our children, which are known by their names.
vm_processes() {
	grep -lzxF "WISP_RUN=$WISP_RUN" /proc/[0-9]*/environ 2>/dev/null | while read -r vm_p; do
		vm_p=${vm_p%/environ}
		case $(cat "$vm_p/comm" 2>/dev/null) in
		wisp-keeper | wisp-vmm) echo "${vm_p#/proc/}" ;;
		esac
	done
}

no_processes() {
	[ -z "$(vm_processes)" ]
}

# vm_pid NAME: the process of its hypervisor
vm_pid() {
	vm_field "$1" pid
}

# vm_field NAME FIELD: of wisp vm list --json, nested ones with dots; "" when not there
vm_field() {
	wisp vm list --json | python3 -c '
import json, sys
for vm in json.load(sys.stdin):
    if vm["name"] == sys.argv[1]:
        for key in sys.argv[2].split("."):
            vm = vm.get(key, {})
        print("" if vm == {} else vm)
' "$1" "$2"
}

expect_nothing_left() {
	wait_for 30 no_processes || fail "$1: processes are left: $(vm_processes)"
	expect "$1: files left" "$(find "$WISP_RUN" -mindepth 2 2>/dev/null)" ""
}
