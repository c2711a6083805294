#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clusters on the nodes' own network: two nodes with root's wispd each, whose interfaces are the ends of
# a cable, and bare guests of two users: who hears whom by the descriptors that wisp-vmm has, what is
# refused, a VM that moves, what is left when everything is killed. Alone: tests/run node-macvtap
modprobe -a macvtap 8021q veth 2>/dev/null || :
SCRIPT=node-macvtap
. "$(dirname "$0")/node-part.sh"
