/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program that the demo and the tests move about, save, kill and restore: packets go round a
 * ring of ranks, each with a number and a checksum, and what they must hold follows from the number
 * of steps alone. So a packet that is lost, comes twice or has changed is found, and told with what
 * was expected. Every so often all write what they hold into one file (MPI-IO), which is read back
 * by others at the end.
 * usage: ring [--steps N | --until FILE] [--words N] [--file PATH] [--every STEPS] [--nap MS]
 */

#include <getopt.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_US 2000

struct packet {
	uint64_t step, from, sum;
	uint64_t word[];
};

struct ring {
	int rank, ranks;
	uint64_t words, steps, every;
	const char *until, *path;
	unsigned nap_us;
	MPI_File file;
	uint64_t records; /* in the file, of each rank */
	uint64_t wrong;
};

static size_t size_of(const struct ring *r)
{
	return sizeof(struct packet) + r->words * sizeof(uint64_t);
}

/* Fletcher's, on words: what is exchanged, or comes in another order, is seen. */
static uint64_t checksum(const struct packet *p, uint64_t words)
{
	uint64_t a = p->step + 1, b = p->from;

	for (uint64_t i = 0; i < words; i++) {
		a += p->word[i];
		b += a;
	}
	return a ^ (b << 1);
}

/* A word of the packet that a rank holds after so many steps: each has added 1. */
static uint64_t expected(const struct ring *r, int rank, uint64_t step, uint64_t i)
{
	uint64_t n = (uint64_t)r->ranks, origin = ((uint64_t)rank + n - step % n) % n;

	return origin * 1000003 + i * 7919 + step;
}

static void complain(struct ring *r, const char *what, uint64_t is, uint64_t should_be)
{
	if (r->wrong++ < 10)
		fprintf(stderr, "rank %d: %s is %llu, not %llu\n", r->rank, what,
			(unsigned long long)is, (unsigned long long)should_be);
}

static void check(struct ring *r, const char *what, uint64_t is, uint64_t should_be)
{
	if (is != should_be)
		complain(r, what, is, should_be);
}

/* What a rank is to hold after a step. */
static void check_packet(struct ring *r, const struct packet *p, int holder, uint64_t step)
{
	int from = (holder + r->ranks - 1) % r->ranks;

	check(r, "the step of a packet", p->step, step);
	check(r, "the sender of a packet", p->from, step ? (uint64_t)from : (uint64_t)holder);
	check(r, "the sum of a packet", p->sum, checksum(p, r->words));
	for (uint64_t i = 0; i < r->words; i++)
		check(r, "a word", p->word[i], expected(r, holder, step, i));
}

static void seal(struct packet *p, uint64_t words)
{
	p->sum = checksum(p, words);
}

/* MPI's own waiting looks without end; where CPUs are shared or emulated that is all they do. */
static void await(MPI_Request *requests, int n)
{
	int done = 0;

	while (MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), !done)
		usleep(LOOK_US);
}

static int is_over(struct ring *r, uint64_t step)
{
	int over = r->until ? r->rank == 0 && access(r->until, F_OK) == 0 : step >= r->steps;
	MPI_Request request;

	if (!r->until)
		return over;
	MPI_Ibcast(&over, 1, MPI_INT, 0, MPI_COMM_WORLD, &request);
	await(&request, 1);
	return over;
}

/* Adds 1 to all words, sends that on, and takes what comes. */
static void take_step(struct ring *r, struct packet *mine, struct packet *next, uint64_t step)
{
	int to = (r->rank + 1) % r->ranks, from = (r->rank + r->ranks - 1) % r->ranks;
	MPI_Request request[2];

	for (uint64_t i = 0; i < r->words; i++)
		mine->word[i]++;
	mine->step = step;
	mine->from = (uint64_t)r->rank;
	seal(mine, r->words);
	MPI_Irecv(next, (int)size_of(r), MPI_BYTE, from, 0, MPI_COMM_WORLD, &request[0]);
	MPI_Isend(mine, (int)size_of(r), MPI_BYTE, to, 0, MPI_COMM_WORLD, &request[1]);
	await(request, 2);
	check_packet(r, next, r->rank, step);
}

/* -------- the file: records of all ranks, one behind the other -------- */

static void must(int code, const char *what, const char *path)
{
	char text[MPI_MAX_ERROR_STRING];
	int n;

	if (code == MPI_SUCCESS)
		return;
	MPI_Error_string(code, text, &n);
	fprintf(stderr, "cannot %s %s: %s\n", what, path, text);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static MPI_Offset place(const struct ring *r, uint64_t record, int rank)
{
	return (MPI_Offset)((record * (uint64_t)r->ranks + (uint64_t)rank) * size_of(r));
}

static void open_file(struct ring *r)
{
	if (!r->path)
		return;
	must(MPI_File_open(MPI_COMM_WORLD, r->path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL,
			   &r->file),
	     "open", r->path);
	must(MPI_File_set_size(r->file, 0), "empty", r->path);
}

static void write_record(struct ring *r, const struct packet *p)
{
	must(MPI_File_write_at_all(r->file, place(r, r->records, r->rank), p, (int)size_of(r),
				   MPI_BYTE, MPI_STATUS_IGNORE),
	     "write", r->path);
	r->records++;
}

/* Each reads what its neighbour wrote. */
static void check_file(struct ring *r, struct packet *p)
{
	int of = (r->rank + 1) % r->ranks;
	MPI_Offset size;

	must(MPI_File_sync(r->file), "write", r->path);
	MPI_Barrier(MPI_COMM_WORLD);
	must(MPI_File_get_size(r->file, &size), "look at", r->path);
	check(r, "the file's size", (uint64_t)size, (uint64_t)place(r, r->records, 0));
	for (uint64_t i = 0; i < r->records; i++) {
		memset(p, 0, size_of(r));
		must(MPI_File_read_at_all(r->file, place(r, i, of), p, (int)size_of(r), MPI_BYTE,
					  MPI_STATUS_IGNORE),
		     "read", r->path);
		check_packet(r, p, of, (i + 1) * r->every);
	}
	must(MPI_File_close(&r->file), "close", r->path);
}

/* -------- all of it -------- */

static void run(struct ring *r)
{
	struct packet *mine = calloc(1, size_of(r)), *next = calloc(1, size_of(r)), *other;
	double began = MPI_Wtime(), last = began, told = began, gap = 0, now;
	uint64_t step = 0, all_wrong = 0;

	if (!mine || !next)
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (uint64_t i = 0; i < r->words; i++)
		mine->word[i] = expected(r, r->rank, 0, i);
	open_file(r);
	while (!is_over(r, step)) {
		take_step(r, mine, next, ++step);
		other = mine;
		mine = next;
		next = other;
		if (r->path && step % r->every == 0)
			write_record(r, mine);
		now = MPI_Wtime();
		gap = now - last > gap ? now - last : gap;
		last = now;
		if (r->rank == 0 && (now - told >= 1 || step == 1)) {
			printf("step %llu after %.1f s\n", (unsigned long long)step, now - began);
			fflush(stdout);
			told = now;
		}
		if (r->nap_us)
			usleep(r->nap_us);
	}
	if (r->path)
		check_file(r, next);
	MPI_Reduce(&r->wrong, &all_wrong, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
	MPI_Bcast(&all_wrong, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
	r->wrong = all_wrong;
	if (r->rank == 0)
		printf("%llu steps of %d ranks, %llu records each in the file, longest pause %.2f "
		       "s: "
		       "%s\n",
		       (unsigned long long)step, r->ranks, (unsigned long long)r->records, gap,
		       all_wrong ? "WRONG" : "right");
	free(mine);
	free(next);
}

/* Newlines in the text: NULL when all is well. */
static const char *parse(struct ring *r, int argc, char **argv)
{
	static const struct option options[] = {{"steps", 1, NULL, 's'},
						{"until", 1, NULL, 'u'},
						{"words", 1, NULL, 'w'},
						{"file", 1, NULL, 'f'},
						{"every", 1, NULL, 'e'},
						{"nap", 1, NULL, 'n'},
						{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			r->steps = strtoull(optarg, NULL, 10);
			break;
		case 'u':
			r->until = optarg;
			break;
		case 'w':
			r->words = strtoull(optarg, NULL, 10);
			break;
		case 'f':
			r->path = optarg;
			break;
		case 'e':
			r->every = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			r->nap_us = (unsigned)strtoul(optarg, NULL, 10) * 1000;
			break;
		default:
			return "unknown option";
		}
	}
	if (optind < argc)
		return "unexpected argument";
	if (!r->words || r->words > 1 << 24 || !r->every)
		return "--words has to be 1 to 16777216, --every at least 1";
	return r->until || r->steps ? NULL : "give --steps or --until";
}

int main(int argc, char **argv)
{
	struct ring r = {.words = 2048, .every = 10};
	const char *error;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
	MPI_Comm_size(MPI_COMM_WORLD, &r.ranks);
	error = parse(&r, argc, argv);
	if (error && r.rank == 0)
		fprintf(stderr, "ring: %s\n", error);
	if (!error)
		run(&r);
	MPI_Finalize();
	return error ? 2 : r.wrong != 0;
}
