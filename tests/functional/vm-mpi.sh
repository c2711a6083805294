#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Plain mpirun of OpenMPI and MPICH runs across two VMs, launched by wisp-rsh without ssh.
# Alone: tests/run vm-mpi
VM_IMAGES=mpi
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

wisp vm start m1 m2 --image mpi --memory 512M
expect "wisp-rsh" "$(wisp vm exec m1 wisp-rsh m2 hostname)" m2
rc=0
wisp vm exec m1 -- wisp-rsh m2 'exit 9' || rc=$?
expect "its exit code" $rc 9
refuse 255 "no VM m3 is in this network" wisp vm exec m1 wisp-rsh m3 hostname
echo "OpenMPI"
expect OpenMPI "$(wisp vm exec m1 -- mpirun.openmpi -np 2 --host m1,m2 hostname | sort | tr '\n' ' ')" \
	"m1 m2 "
wisp vm exec m1 -- mpirun.openmpi -np 2 --host m1,m2 NPopenmpi -u 16 -o /tmp/np.out
echo "MPICH"
expect MPICH "$(wisp vm exec m1 -- mpirun.mpich -np 2 -hosts m1,m2 hostname | sort | tr '\n' ' ')" \
	"m1 m2 "
wisp vm stop m1 m2
expect_nothing_left "after stop"
