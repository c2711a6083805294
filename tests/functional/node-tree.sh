#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Several wispd on loopback are a tree, by a key and by MUNGE: requests, losses, users, strangers.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"

# The host's own key and daemon are not ours.
export WISP_RUN="$TMP/run" WISP_HOME="$TMP/home" WISP_CONFIG="$TMP/config"
chmod 711 "$TMP"
PYTHONPATH=$(dirname "$0") PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/node-tree.py" "$WISP_BUILD" "$TMP"
