/* SPDX-License-Identifier: Apache-2.0 */
/* Writing Prometheus' text format. */

#include "node/metrics.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct metrics {
	FILE *out;
	char *text;
	size_t size;
	char family[128]; /* empty: none was begun, or its name is bad */
	int error;
};

struct metrics *metrics_new(void)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (m)
		m->out = open_memstream(&m->text, &m->size);
	if (m && !m->out) {
		free(m);
		m = NULL;
	}
	return m;
}

/* Of a family, or (without colons) of a label. */
static bool is_name(const char *name, bool colons)
{
	for (const char *c = name; *c; c++)
		if (!(isascii(*c) && (isalpha(*c) || *c == '_' || (colons && *c == ':') ||
				      (c > name && isdigit(*c)))))
			return false;
	return name[0];
}

static void escape(FILE *out, const char *text, bool quotes)
{
	for (; *text; text++)
		if (*text == '\\')
			fputs("\\\\", out);
		else if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '"' && quotes)
			fputs("\\\"", out);
		else
			fputc(*text, out);
}

void metrics_family(struct metrics *m, const char *name, const char *type, const char *help)
{
	if (!m)
		return;
	m->family[0] = 0;
	if (!is_name(name, true) || strlen(name) >= sizeof(m->family)) {
		m->error = -EINVAL;
		return;
	}
	strcpy(m->family, name);
	fprintf(m->out, "# HELP %s ", name);
	escape(m->out, help, false);
	fprintf(m->out, "\n# TYPE %s %s\n", name, type);
}

/* Whole numbers exactly, others so that they are read back the same. */
static void write_number(FILE *out, double value)
{
	if (isnan(value))
		fputs("NaN", out);
	else if (isinf(value))
		fputs(value > 0 ? "+Inf" : "-Inf", out);
	else
		fprintf(out, "%.17g", value);
}

void metrics_value(struct metrics *m, double value, const struct metrics_label *labels, size_t n)
{
	bool ok = m && m->family[0];

	for (size_t i = 0; i < n; i++)
		ok = ok && is_name(labels[i].name, false);
	if (!ok) {
		if (m)
			m->error = -EINVAL;
		return;
	}
	fputs(m->family, m->out);
	for (size_t i = 0; i < n; i++) {
		fprintf(m->out, "%s%s=\"", i ? "," : "{", labels[i].name);
		escape(m->out, labels[i].value, true);
		fputc('"', m->out);
	}
	fputs(n ? "} " : " ", m->out);
	write_number(m->out, value);
	fputc('\n', m->out);
}

int metrics_take(struct metrics *m, char **ret)
{
	int r = m ? m->error : -ENOMEM;

	if (!m)
		return r;
	if (fclose(m->out) && !r)
		r = -ENOMEM;
	if (r)
		free(m->text);
	else
		*ret = m->text;
	free(m);
	return r;
}
