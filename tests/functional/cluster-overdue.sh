#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A rule of the nodes wants checkpoints, and nobody makes them: the nodes' daemons end the cluster. Bare guests with
# stand-ins for their agents, as in cluster-faults. Alone: tests/run cluster-overdue
SCRIPT=cluster-overdue
. "$(dirname "$0")/cluster-faults.sh"
