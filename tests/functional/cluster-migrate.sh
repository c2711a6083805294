#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Several VMs of a cluster over two nodes move at once, with one limit of the bandwidth for all, and
# movers that are killed: bare guests as in cluster-faults. Alone: tests/run cluster-migrate
SCRIPT=cluster-migrate
. "$(dirname "$0")/cluster-faults.sh"
