/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lab-migrate moves about: ranks hand arrays round a ring, adding 1 at each step,
 * until /tmp/finish is there. What they then must hold follows from the number of steps alone.
 * usage: exchange [WORDS]
 */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NAP_US 50000 /* emulated nodes have one CPU for all of it */
#define LOOK_US 2000

/*
 * MPI's own waiting looks without end, some 10,000 system calls a second. While a peer moves that
 * is what an emulated CPU can least stand (docs/design/lab.md).
 */
static void await(MPI_Request *requests, int n)
{
	int done = 0;

	while (MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), !done)
		usleep(LOOK_US);
}

static long expected(int rank, int ranks, long steps, int i)
{
	long from = (rank - steps % ranks + ranks) % ranks;

	return from * 1000003 + i + steps;
}

/* One step for all, or -1 when rank 0 says that it is over. */
static int step(long *mine, long *next, int words, int rank, int ranks)
{
	int over = rank == 0 && access("/tmp/finish", F_OK) == 0;
	MPI_Request request[2];

	MPI_Ibcast(&over, 1, MPI_INT, 0, MPI_COMM_WORLD, &request[0]);
	await(request, 1);
	if (over)
		return -1;
	MPI_Irecv(next, words, MPI_LONG, (rank + ranks - 1) % ranks, 0, MPI_COMM_WORLD,
		  &request[0]);
	MPI_Isend(mine, words, MPI_LONG, (rank + 1) % ranks, 0, MPI_COMM_WORLD, &request[1]);
	await(request, 2);
	for (int i = 0; i < words; i++)
		mine[i] = next[i] + 1;
	usleep(NAP_US);
	return 0;
}

int main(int argc, char **argv)
{
	int rank, ranks, wrong = 0, all_wrong = 0, words = argc > 1 ? atoi(argv[1]) : 2048;
	long *mine, *next, steps = 0;
	double began, last, gap = 0;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	mine = malloc((size_t)words * sizeof(*mine));
	next = malloc((size_t)words * sizeof(*next));
	if (!mine || !next)
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (int i = 0; i < words; i++)
		mine[i] = expected(rank, ranks, 0, i);
	began = last = MPI_Wtime();
	while (!step(mine, next, words, rank, ranks)) {
		double now = MPI_Wtime();

		steps++;
		gap = now - last > gap ? now - last : gap;
		last = now;
		if (rank == 0 && steps % 100 == 1) {
			printf("step %ld after %.1f s\n", steps, now - began);
			fflush(stdout);
		}
	}
	for (int i = 0; i < words; i++)
		wrong += mine[i] != expected(rank, ranks, steps, i);
	MPI_Reduce(&wrong, &all_wrong, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("%ld steps of %d ranks, longest pause %.1f s: %s\n", steps, ranks, gap,
		       all_wrong ? "WRONG" : "right");
	MPI_Finalize();
	return all_wrong != 0;
}
