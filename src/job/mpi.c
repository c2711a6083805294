/* SPDX-License-Identifier: Apache-2.0 */
/* MPI launchers of both kinds. */

#include "job/mpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

/* Debian has both kinds side by side under these names; elsewhere there is one. */
#define CHOOSE "m=$(command -v mpirun.%s) || m=mpirun; exec \"$m\" \"$@\""

static unsigned long number(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (unsigned long)n : 0;
}

static unsigned long slots(const struct mpi *mpi)
{
	unsigned long most = number(mpi->environment, "ranks-per-vm");

	return most ? most : number(mpi->environment, "cpus");
}

static const char *flavour(const struct mpi *mpi)
{
	const char *kind = json_string_value(json_object_get(mpi->environment, "mpi"));

	return kind && strcmp(kind, "none") ? kind : NULL;
}

/* -------- host files -------- */

static char *hosts(const struct mpi *mpi, const char *between)
{
	char *text = NULL;
	size_t size, i;
	FILE *out = open_memstream(&text, &size);
	const json_t *vm;

	if (!out)
		return NULL;
	json_array_foreach (mpi->vms, i, vm)
		fprintf(out, "%s%s%lu\n", json_string_value(vm), between, slots(mpi));
	return fclose(out) ? NULL : text;
}

char *mpi_hosts_openmpi(const struct mpi *mpi)
{
	return hosts(mpi, " slots=");
}

char *mpi_hosts_mpich(const struct mpi *mpi)
{
	return hosts(mpi, ":");
}

/* -------- the command -------- */

int mpi_ranks(const struct mpi *mpi, unsigned long *ret, struct error *err)
{
	unsigned long room = slots(mpi) * json_array_size(mpi->vms);
	unsigned long wanted = number(mpi->environment, "ranks");

	if (wanted > room)
		return error_set(err, -ENOSPC,
				 "%lu ranks do not fit into %zu VMs of %lu: more vms or cpus, or a "
				 "higher ranks-per-vm",
				 wanted, json_array_size(mpi->vms), slots(mpi));
	*ret = wanted ? wanted : room;
	return 0;
}

static bool is_launcher(const char *program)
{
	const char *slash = strrchr(program, '/');

	program = slash ? slash + 1 : program;
	return !strncmp(program, "mpirun", 6) || !strncmp(program, "mpiexec", 7);
}

bool mpi_launches(const struct mpi *mpi, const json_t *program)
{
	const char *first = json_string_value(json_array_get(program, 0));

	return flavour(mpi) && first && !is_launcher(first);
}

static json_t *launcher(const char *kind, unsigned long ranks, bool label)
{
	bool openmpi = !strcmp(kind, "openmpi");
	char choose[128], count[24];

	snprintf(choose, sizeof(choose), CHOOSE, kind);
	snprintf(count, sizeof(count), "%lu", ranks);
	return json_pack("[s, s, s, s, s, s, s*]", "sh", "-c", choose, "mpirun", "-n", count,
			 !label	   ? NULL
			 : openmpi ? "--tag-output"
				   : "-prepend-rank");
}

int mpi_command(const struct mpi *mpi, const json_t *program, bool label, json_t **ret,
		struct error *err)
{
	unsigned long ranks;
	json_t *list;
	int r;

	if (!mpi_launches(mpi, program)) {
		*ret = json_deep_copy(program);
		return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	r = mpi_ranks(mpi, &ranks, err);
	if (r)
		return r;
	list = launcher(flavour(mpi), ranks, label);
	if (!list || json_array_extend(list, (json_t *)program)) {
		json_decref(list);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = list;
	return 0;
}

/* -------- variables -------- */

json_t *mpi_variables(const struct mpi *mpi)
{
	/* OpenMPI 4; 5; MPICH. Of VMs root is who made them. */
	static const char *const ours[][2] = {
		{"OMPI_MCA_orte_default_hostfile", MPI_HOSTS_OPENMPI},
		{"PRTE_MCA_prte_default_hostfile", MPI_HOSTS_OPENMPI},
		{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
		{"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
		{"PRTE_ALLOW_RUN_AS_ROOT", "1"},
		{"PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
		{"HYDRA_HOST_FILE", MPI_HOSTS_MPICH},
	};
	json_t *all = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		json_object_set_new(all, ours[i][0], json_string(ours[i][1]));
	json_object_update(all, json_object_get(mpi->environment, "environment"));
	return all;
}
