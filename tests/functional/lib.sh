# SPDX-License-Identifier: Apache-2.0
# For the functional tests: . "$(dirname "$0")/lib.sh"
# Sets errexit, $TOP (the tree), $WISP_BUILD, PATH (our programs first) and $TMP, a private
# folder that is removed at the end; a test adds its own clean-up by at_exit COMMAND.
set -eu
TOP=$(cd "$(dirname "$0")/../.." && pwd)
WISP_BUILD=${WISP_BUILD:-$TOP/build}
# The system's programs, not what stands before them (pyenv): that takes seconds in an emulated node.
PATH=$WISP_BUILD/src/cli:$WISP_BUILD/src/vmm:/usr/bin:$PATH
TMP=$(mktemp -d "${TMPDIR:-/tmp}/wisp-test.XXXXXX")
export PATH WISP_BUILD TMP
at_exit_commands="rm -rf '$TMP'"
at_failure=consoles
trap 'case $? in 0 | 77) ;; *) $at_failure >&2 || : ;; esac; eval "$at_exit_commands"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

at_exit() {
	at_exit_commands="$*; $at_exit_commands"
}

# What the VMs printed last: a guest that panicked says so nowhere else. Who has its VMs elsewhere
# sets at_failure to a command of its own.
consoles() {
	for console in "${WISP_RUN:-/run/wisp}"/vm/*/console; do
		if [ -f "$console" ]; then
			echo "$console ends:"
			tail -n 30 "$console"
		fi
	done
}

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

# expect WHAT GOT WANTED
expect() {
	[ "$2" = "$3" ] || fail "$1: got \"$2\", not \"$3\""
}

# refuse CODE TEXT COMMAND...: the command fails with that exit code and says TEXT.
refuse() {
	refuse_code=$1 refuse_text=$2
	shift 2
	refuse_rc=0
	"$@" >"$TMP/refuse.out" 2>&1 || refuse_rc=$?
	[ "$refuse_rc" = "$refuse_code" ] || {
		cat "$TMP/refuse.out" >&2
		fail "$*: exit code $refuse_rc, not $refuse_code"
	}
	grep -qF -- "$refuse_text" "$TMP/refuse.out" || {
		cat "$TMP/refuse.out" >&2
		fail "$*: did not say \"$refuse_text\""
	}
}

# Runs a command in the node of the shared lab, with our images.
in_lab() {
	wisp lab exec --name "$WISP_TEST_LAB" node1 -- env "PATH=$PATH" "WISP_BUILD=$WISP_BUILD" \
		${WISP_HOME:+"WISP_HOME=$WISP_HOME"} TMPDIR=/tmp "$@"
}

# tiny_image HOME: an image that is one by its form alone.
tiny_image() {
	mkdir -p "$1/images/tiny"
	python3 - "$1/images/tiny/" <<'END'
import hashlib, json, sys
folder, parts = sys.argv[1], {}
for name in ["vmlinux", "vmlinuz", "initrd", "root.squashfs"]:
    open(folder + name, "w").write(name)
    parts[name] = {"size": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()}
json.dump({"format": 1, "name": "tiny", "created": "now", "builder": "test", "key": "k", "parts": parts},
          open(folder + "manifest.json", "w"))
END
}
