# SPDX-License-Identifier: Apache-2.0
# For the tests of wisp lab: . "$(dirname "$0")/lab-lib.sh" after lib.sh.
# Labs of a test keep their state in a folder of their own, and every process of theirs is known by
# having $WISP_RUN of that folder in its environment.
RUN=$TMP/run
unset WISP_LAB
at_exit 'lab down --all 2>/dev/null'
command -v qemu-system-x86_64 >/dev/null || skip "QEMU is not installed"

lab() {
	WISP_RUN=$RUN wisp lab "$@"
}

# The pids of all processes that belong to this test's labs.
lab_processes() {
	for lab_p in /proc/[0-9]*; do
		# A zombie has no environment any more.
		if grep -qzxF "WISP_RUN=$RUN" "$lab_p/environ" 2>/dev/null; then
			echo "${lab_p#/proc/}"
		fi
	done
}

# lab_pids PROGRAM TEXT: those of them that run the program and have the text in the command line
lab_pids() {
	for lab_p in $(lab_processes); do
		lab_cmd=$(tr '\0' ' ' <"/proc/$lab_p/cmdline" 2>/dev/null) || continue
		case $lab_cmd in *"$1"*"$2"*) echo "$lab_p" ;; esac
	done
}

# The keeper is the one process that is neither QEMU nor virtiofsd nor a client.
lab_keeper() {
	for lab_p in $(lab_processes); do
		if [ "$(cat "/proc/$lab_p/comm" 2>/dev/null)" = wisp-keeper ]; then
			echo "$lab_p"
		fi
	done
}

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	wait_end=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$wait_end" ] || return 1
		sleep 0.1
	done
}

no_processes() {
	[ -z "$(lab_processes)" ]
}

# Nothing of the labs is left: no process (and so no namespace), no file, no mount.
expect_nothing_left() {
	wait_for 5 no_processes || {
		for lab_p in $(lab_processes); do
			echo "$lab_p $(tr '\0' ' ' <"/proc/$lab_p/cmdline")" >&2
		done
		fail "$1: processes are left"
	}
	expect "$1: files left" "$(ls "$RUN/lab" 2>/dev/null)" ""
	expect "$1: mounts" "$(lab_mounts)" "$MOUNTS"
}
# Named network namespaces are other tests'.
lab_mounts() {
	grep -v -e ' /run/netns' -e '^nsfs ' /proc/self/mounts
}
MOUNTS=$(lab_mounts)
