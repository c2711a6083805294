#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The long form of cluster-faults: each process in each phase.
WISP_FAULTS=all FAULTS_SECONDS=1700
export WISP_FAULTS FAULTS_SECONDS
exec "$(dirname "$0")/cluster-faults.sh"
