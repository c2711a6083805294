/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meet by its laws, on random documents: order, doubles and grouping make no difference, a
 * document more only tightens, what is decided is what all want, and the result is itself a
 * document of the same digest. WISP_SEED repeats a run; a failure prints the seed.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "env/test/documents.h"
#include "lib/io.h"

#define ROUNDS 400
#define MAX_DOCUMENTS 6

/* Few values, so that documents agree and disagree often. */
static const char *const lines[] = {
	"base: [debian:trixie, debian:sid]",
	"base: debian:*",
	"base: [\"debian:*\", debian]",
	"base: debian:sid",
	"base: [oci:x, debian:sid]",
	"compression: [lz4, zstd]",
	"compression: [zstd, xz]",
	"compression: \"?z*\"",
	"trim: yes",
	"trim: no",
	"signed: no",
	"cpus: 2..8",
	"cpus: [1, 4..6]",
	"cpus: 6..",
	"cpus: [1..3, 8..10]",
	"memory: 1G..8G",
	"memory: [2G, 4G]",
	"memory: ..256M",
	"memory: 2G",
	"ranks: 1..64",
	"ranks: 16",
	"packages: [gcc, bash=5]",
	"packages: [gcc=12]",
	"packages: [gcc=13, dash]",
	"packages: {forbid: [\"*sh\"]}",
	"packages: {allow: [\"g*\", bash], require: [bash]}",
	"packages: none",
	"modules: [a, b]",
	"modules: {allow: [\"?\"]}",
	"files: {/a: {from: x}}",
	"files: {/a: {from: [x, y], mode: 0644}, /b: {from: z}}",
	"files: {\"/*\": {mode: [0600, 0644]}}",
	"files: {\"/?\": {mode: 0600}}",
	"files: {/b: none}",
	"files: none",
	"volumes: {v: {size: 1G..4G}}",
	"volumes: {v: {path: /v}, \"*\": {readonly: yes}}",
	"environment: {A: x, B: \"*\"}",
	"environment: {A: [x, y]}",
	"environment: {\"?\": y}",
	"steps: [s, t]",
	"steps: [t, u]",
	"steps: [u, s]",
	"steps: [{step: s, run: other}]",
	"steps: [{run: v, after: [u, w]}, w]",
	"program: [a, b]",
	"program: [a]",
	"checkpoint: {interval: off}",
	"checkpoint: {interval: 1m..60m, keep: 2..}",
	"checkpoint: {interval: 10m.., keep: [1, 5]}",
	"walltime: [1h, 1d..]",
	"walltime: ..12h",
	"walltime: 13h..",
	"vms: 1..8",
	"vms: 4..",
	"defaults: {cpus: 4, memory: 4G, compression: xz}",
	"defaults: {cpus: 2, packages: [gcc], base: debian:sid}",
	"defaults: {files: {\"*\": {mode: 0600}}, checkpoint: {interval: 30m}}",
	"defaults: {program: [d], steps: [d], ranks: 8, walltime: 1h}",
};

struct text {
	char *text;
	char where[32];
	bool policy;
};

struct round {
	unsigned seed;
	struct text doc[MAX_DOCUMENTS];
	size_t n;
	json_t *facts;
};

static unsigned pick(struct round *r, unsigned n)
{
	return (unsigned)rand_r(&r->seed) % n;
}

/* The key of "key: value" is in the text already. */
static bool has_key(const char *text, const char *line)
{
	CLEANUP_FREE char *key = io_format("\n%.*s:", (int)strcspn(line, ":"), line);

	return strstr(text, key);
}

static char *random_document(struct round *r, bool policy, const char *rule)
{
	static const char *const heads[] = {"",
					    "",
					    "match: {queue: long}\n",
					    "match: {queue: short}\n",
					    "match: {walltime: 12h..}\n",
					    "match: {walltime: ..1h}\n",
					    "match: {vms: 2.., queue: long}\n",
					    "level: project\n",
					    "warn: yes\n"};
	const char *head = policy ? heads[pick(r, ARRAY_SIZE(heads))] : "";
	char *text = io_format("\nrule: %s\n%s", rule, head);

	for (unsigned i = 1 + pick(r, 6); i; i--) {
		const char *line = lines[pick(r, ARRAY_SIZE(lines))];
		char *longer;

		if (has_key(text, line) || (strstr(head, "warn") && !strncmp(line, "def", 3)))
			continue;
		longer = io_format("%s%s\n", text, line);
		free(text);
		text = longer;
	}
	return text;
}

static void round_init(struct round *r, unsigned seed)
{
	*r = (struct round){.seed = seed};
	r->n = 1 + pick(r, MAX_DOCUMENTS);
	r->facts = json_pack("{s:[s]}", "queue", "long");
	for (size_t i = 0; i < r->n; i++) {
		struct text *d = &r->doc[i];

		d->policy = pick(r, 2);
		snprintf(d->where, sizeof(d->where), "d%zu.yaml", i);
		d->text = random_document(r, d->policy, d->where);
	}
}

static void round_done(struct round *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->doc[i].text);
	json_decref(r->facts);
}

static void say_round(const struct round *r, unsigned seed)
{
	print_message("seed %u:\n", seed);
	for (size_t i = 0; i < r->n; i++)
		print_message("--- %s%s\n%s", r->doc[i].where, r->doc[i].policy ? " (policy)" : "",
			      r->doc[i].text);
}

static void add(struct documents *docs, const struct text *d)
{
	parse(docs, d->text, d->where, d->policy);
	if (docs->problems.n)
		fail_msg("%s", docs->problems.v[0]);
}

static char *report_text(const struct documents *docs, const json_t *facts)
{
	json_t *report;
	struct meet m;
	char *text;

	meet_documents(docs, facts, NULL, &m);
	report = result_report(&m);
	text = json_dumps(report, JSON_SORT_KEYS | JSON_COMPACT);
	json_decref(report);
	meet_done(&m);
	return text;
}

/* Any order, and some of them twice: the same to the last byte, places and conflicts included. */
static bool order_makes_no_difference(struct round *r)
{
	struct documents docs = {0}, shuffled = {0};
	CLEANUP_FREE char *a = NULL, *b = NULL;
	size_t order[MAX_DOCUMENTS];

	for (size_t i = 0; i < r->n; i++) {
		size_t j = pick(r, (unsigned)i + 1);

		add(&docs, &r->doc[i]);
		order[i] = order[j];
		order[j] = i;
	}
	for (size_t i = 0; i < r->n; i++)
		for (unsigned times = 1 + pick(r, 2); times; times--)
			add(&shuffled, &r->doc[order[i]]);
	a = report_text(&docs, r->facts);
	b = report_text(&shuffled, r->facts);
	documents_done(&docs);
	documents_done(&shuffled);
	return !strcmp(a, b);
}

/* Two documents in one file, or in two: the same values. */
static bool grouping_makes_no_difference(struct round *r)
{
	struct documents apart = {0}, together = {0};
	CLEANUP_FREE char *a = NULL, *b = NULL;
	struct meet m;

	for (size_t i = 0; i < r->n; i++)
		add(&apart, &r->doc[i]);
	for (size_t i = 0; i < r->n; i++) {
		bool join = i + 1 < r->n && r->doc[i].policy == r->doc[i + 1].policy;
		CLEANUP_FREE char *text =
			io_format("%s---%s", r->doc[i].text, join ? r->doc[i + 1].text : "\n");

		parse(&together, text, "together", r->doc[i].policy);
		i += join;
	}
	meet_documents(&apart, r->facts, NULL, &m);
	a = outcome(&m);
	meet_done(&m);
	meet_documents(&together, r->facts, NULL, &m);
	b = outcome(&m);
	meet_done(&m);
	documents_done(&apart);
	documents_done(&together);
	return !strcmp(a, b);
}

/* The conflict is still there: at the field, or the whole entry has become one. */
static bool conflict_stays(const struct decision *d, const struct meet *more)
{
	const struct decision *same = meet_find(more, d->name);
	const char *close = strchr(d->name, ']');
	CLEANUP_FREE char *entry = close ? strndup(d->name, (size_t)(close - d->name) + 1) : NULL;
	const struct decision *whole = entry ? meet_find(more, entry) : NULL;

	return (same && same->why && !same->missing) || (whole && whole->why && !whole->missing);
}

static bool took_part(const struct meet *m, const struct document *doc)
{
	for (size_t i = 0; i < m->nskipped; i++)
		if (!strcmp(m->skipped[i].doc->rule, doc->rule))
			return false;
	return true;
}

/* One more document may make the environment one that a rule is not about. */
static bool one_left(const struct documents *docs, const struct meet *before,
		     const struct meet *after)
{
	for (size_t i = 0; i + 1 < docs->n; i++)
		if (took_part(before, docs->doc[i]) && !took_part(after, docs->doc[i]))
			return true;
	return false;
}

static bool more_only_tightens(struct round *r)
{
	struct documents docs = {0};
	struct meet before = {0}, after;
	bool good = true;

	/* Claims are of documents that stay where they are while others are added. */
	for (size_t n = 0; good && n < r->n; n++) {
		add(&docs, &r->doc[n]);
		meet_documents(&docs, r->facts, NULL, &after);
		for (size_t i = 0; i < before.n; i++)
			if (before.d[i].why && !before.d[i].missing &&
			    !one_left(&docs, &before, &after))
				good &= conflict_stays(&before.d[i], &after);
		meet_done(&before);
		before = after;
	}
	meet_done(&before);
	documents_done(&docs);
	return good;
}

/* Every claim of every document that takes part holds for what was decided. */
static bool all_get_what_they_want(struct round *r)
{
	struct documents docs = {0};
	bool good = true;
	struct meet m;

	for (size_t i = 0; i < r->n; i++)
		add(&docs, &r->doc[i]);
	meet_documents(&docs, r->facts, NULL, &m);
	for (size_t i = 0; i < docs.n; i++) {
		const struct document *doc = docs.doc[i];

		if (doc->warn || !took_part(&m, doc))
			continue;
		for (size_t j = 0; j < doc->n; j++)
			for (size_t k = 0; k < m.n && !doc->claim[j].is_default; k++)
				if (m.d[k].field == doc->claim[j].field && !m.d[k].why &&
				    claim_is_of(&doc->claim[j], m.d[k].key))
					good &= claim_holds(&doc->claim[j], m.d[k].value);
	}
	meet_done(&m);
	documents_done(&docs);
	return good;
}

/* The closed environment read as a document comes to itself. */
static bool result_is_a_document(struct round *r)
{
	struct documents docs = {0}, again = {0};
	CLEANUP_FREE char *a = NULL, *b = NULL;
	struct meet m;
	bool good;

	for (size_t i = 0; i < r->n; i++)
		add(&docs, &r->doc[i]);
	meet_documents(&docs, r->facts, NULL, &m);
	a = outcome(&m);
	good = m.conflicts;
	meet_done(&m);
	documents_done(&docs);
	if (good)
		return true;
	parse(&again, a, "closed", false);
	if (again.problems.n)
		print_message("%s\n", again.problems.v[0]);
	good = !again.problems.n;
	meet_documents(&again, r->facts, NULL, &m);
	b = outcome(&m);
	meet_done(&m);
	documents_done(&again);
	return good && !strcmp(a, b);
}

static void for_rounds(bool (*law)(struct round *r))
{
	const char *given = getenv("WISP_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL) * 1000;
	unsigned rounds = given ? 1 : ROUNDS;

	for (unsigned i = 0; i < rounds; i++, seed++) {
		struct round r;
		bool good;

		round_init(&r, seed);
		good = law(&r);
		if (!good)
			say_round(&r, seed);
		round_done(&r);
		if (!good)
			fail_msg("WISP_SEED=%u repeats it", seed);
	}
}

static void test_order(void **state)
{
	for_rounds(order_makes_no_difference);
}

static void test_grouping(void **state)
{
	for_rounds(grouping_makes_no_difference);
}

static void test_tightening(void **state)
{
	for_rounds(more_only_tightens);
}

static void test_wants(void **state)
{
	for_rounds(all_get_what_they_want);
}

static void test_closed(void **state)
{
	for_rounds(result_is_a_document);
}

/* The digest is that of the bytes, and does not change with the program. */
static void test_digest(void **state)
{
	struct documents docs = {0};
	char digest[DIGEST_TEXT];
	CLEANUP_FREE char *text = NULL;
	json_t *closed;
	struct meet m;

	parse(&docs, "name: lu\nmemory: 2G\npackages: [gcc, bash]\nsteps: [x]\n", "a", false);
	meet_documents(&docs, NULL, NULL, &m);
	closed = result_json(&m);
	text = result_canonical(closed);
	assert_string_equal(
		text,
		"{\"base\":\"debian\",\"checkpoint\":{\"compress\":\"none\",\"incremental\":false,"
		"\"interval\":\"off\",\"keep\":2,\"mode\":\"stop\"},\"compression\":\"lz4\","
		"\"cpus\":1,"
		"\"dedicated\":false,\"kernel\":\"linux-image-cloud-amd64\",\"memory\":2147483648,"
		"\"mpi\":\"none\",\"name\":\"lu\",\"network\":{\"isolated\":true,\"kind\":"
		"\"private\","
		"\"subnet\":\"10.78.0.0/24\"},\"numa\":\"none\",\"packages\":[\"bash\",\"gcc\"],"
		"\"page-size\":\"4K\",\"pinning\":\"none\",\"prefault\":false,\"signed\":false,"
		"\"steps\":[{\"run\":\"x\",\"step\":\"x\"}],\"trim\":true,\"vms\":1,"
		"\"vms-per-node\":1,\"walltime\":\"off\"}");
	assert_int_equal(result_digest(closed, digest, NULL), 0);
	assert_string_equal(digest,
			    "30afe6d59e8b0fdd18e315fafe8a5991f1dbf8abc3c4507ee33a53d56934ff2f");
	json_decref(closed);
	meet_done(&m);
	documents_done(&docs);
}

/* What is small in each document and large in all is refused, not worked on for hours. */
static void test_large(void **state)
{
	static const struct {
		const char *head, *item, *tail, *field, *why;
	} rows[] = {
		{"files: {", "/f%u: {from: x}, ", "}", "files", "more than 2048 entries"},
		{"files: {", "\"/f%u*\": {mode: 0644}, ", "}", "files", "more than 1024 patterns"},
		{"packages: [", "pp%u, ", "]", "packages", "more than 2048 items"},
		{"steps: [", "s%u, ", "]", "steps", "more than 1024 steps"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct documents docs = {0};
		const struct decision *d;
		struct meet m;

		for (unsigned n = 0; n < 2500;) {
			struct args text = {0};

			args_add(&text, "%s", rows[i].head);
			for (unsigned end = n + 250; n < end; n++) {
				CLEANUP_FREE char *number = io_format("%u", n);
				const char *at = strstr(rows[i].item, "%u");

				args_extend(&text, "%.*s%s%s", (int)(at - rows[i].item),
					    rows[i].item, number, at + 2);
			}
			args_extend(&text, "%s", rows[i].tail);
			parse(&docs, text.v[0], "x", false);
			args_done(&text);
		}
		assert_int_equal(docs.problems.n, 0);
		meet_documents(&docs, NULL, NULL, &m);
		d = meet_find(&m, rows[i].field);
		assert_non_null(d);
		assert_non_null(d->why);
		assert_non_null(strstr(d->why, rows[i].why));
		meet_done(&m);
		documents_done(&docs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),	   cmocka_unit_test(test_grouping),
		cmocka_unit_test(test_tightening), cmocka_unit_test(test_wants),
		cmocka_unit_test(test_closed),	   cmocka_unit_test(test_digest),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
