#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 1 GiB through stdin, and 1 GiB there and back, with checksums; the agent's memory stays bounded.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start

# The same bytes each time, not compressible by accident: AES of zeros.
bytes() {
	openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 1073741824
}
command -v openssl >/dev/null || skip "openssl is not installed"

wanted=$(bytes | sha256sum)
expect "1 GiB in" "$(bytes | agent exec sha256sum)" "$wanted"
expect "1 GiB there and back" "$(bytes | agent exec cat | sha256sum)" "$wanted"
peak=$(awk '/VmHWM/ {print $2}' "/proc/$AGENT/status")
[ "$peak" -lt 16384 ] || fail "the agent needed $peak KiB"
