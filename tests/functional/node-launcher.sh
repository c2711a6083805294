#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An ordinary user's wispd reaches those of other nodes by a launcher, which starts them.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"

export WISP_RUN="$TMP/run" WISP_HOME="$TMP/home" WISP_CONFIG="$TMP/config"
[ "$(id -u)" != 0 ] || [ -e /run/wisp/node/socket ] || refuse 1 "systemctl start wispd" "$WISP_BUILD/src/node/wispd" --pipe
[ "$(id -u)" != 0 ] || chown -R 65534:65534 "$TMP"
PYTHONPATH=$(dirname "$0") PYTHONDONTWRITEBYTECODE=1 \
	python3 "$(dirname "$0")/node-launcher.py" "$WISP_BUILD" "$TMP"
