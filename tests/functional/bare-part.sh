#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp-part, asked as wispd asks it, with VMs of bare guests: refusals, their life, parts that are
# killed, cuts and restores, moves.
. "$(dirname "$0")/bare-lib.sh"

WISP_RUN=$TMP/run WISP_HOME=$TMP/home WISP_CACHE=$TMP/cache
export WISP_RUN WISP_HOME WISP_CACHE
mkdir "$WISP_RUN" "$WISP_HOME" "$WISP_CACHE"
at_exit '
	for run in "$TMP"/run "$TMP"/run-2; do
		export WISP_RUN=$run
		for left in "$run"/vm/*; do
			[ ! -d "$left" ] || wisp vm stop --kill "${left##*/}" >/dev/null 2>&1 || :
		done
	done'
timeout 400 python3 "$TOP/tests/functional/bare-part.py" \
	"$WISP_BUILD/src/part/wisp-part" "$GUEST" "$TMP" || {
	cat "$TMP/part.log" >&2
	fail "see above"
}
