#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# VMs of a cluster that move between two nodes with root's wispd and a part each, by bare guests:
# there and back, and parts, daemons and movers that are killed meanwhile. Alone: tests/run node-move
SCRIPT=node-move
. "$(dirname "$0")/node-part.sh"
