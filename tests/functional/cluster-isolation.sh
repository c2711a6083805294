#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clusters of two users at once on the same two nodes, by bare guests: no frame, file, socket, process, VM or request of
# one reaches the other, and no core is shared. Alone: tests/run cluster-isolation
SCRIPT=cluster-isolation
. "$(dirname "$0")/node-part.sh"
