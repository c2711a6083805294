/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_MPI_H
#define WISP_JOB_MPI_H

/*
 * How a program is started over the VMs of a cluster: host files and variables by which "mpirun
 * PROGRAM" takes all of them, in OpenMPI (4 and 5) and MPICH, and the launcher's own command line
 * when the environment names one. Pure; any thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct error;

#define MPI_HOSTS_OPENMPI "/etc/wisp/hosts.openmpi"
#define MPI_HOSTS_MPICH "/etc/wisp/hosts.mpich"

struct mpi {
	const json_t *environment;
	const json_t *vms; /* names */
};

/* One VM a line, "lu-0 slots=4" or "lu-0:4"; a new string. */
char *mpi_hosts_openmpi(const struct mpi *mpi);
char *mpi_hosts_mpich(const struct mpi *mpi);

/* Processes: `ranks`, or all that have room. -ENOSPC: they have none. */
int mpi_ranks(const struct mpi *mpi, unsigned long *ret, struct error *err);

/*
 * What is executed in the first VM for the program: the program itself, or the launcher of the
 * environment's `mpi`. label: the launcher says of each line which rank wrote it. A new list.
 */
int mpi_command(const struct mpi *mpi, const json_t *program, bool label, json_t **ret,
		struct error *err);

/* Whether the launcher of `mpi` starts the program. */
bool mpi_launches(const struct mpi *mpi, const json_t *program);

/* The variables of the program: those of the environment, and what launchers need. A new object. */
json_t *mpi_variables(const struct mpi *mpi);

#endif
