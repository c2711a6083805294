#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# VMs of a cluster over two nodes leave the one that drains, when and as far as the other has room:
# bare guests with stand-ins for their agents, as in cluster-faults. Alone: tests/run cluster-drain
SCRIPT=cluster-drain
. "$(dirname "$0")/cluster-faults.sh"
