/* SPDX-License-Identifier: Apache-2.0 */
/* The site's folder of documents. */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "env/document.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/paths.h"

static int is_document(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && dot && !strcmp(dot, ".yaml");
}

/* A waiver names a rule, so a name is one rule's. */
static void check_rules(struct documents *docs, size_t first)
{
	for (size_t i = first; i < docs->n; i++) {
		const struct document *doc = docs->doc[i];

		if (paths_check_name(doc->rule, "rule", NULL))
			args_add(&docs->problems, "%s: give it a name, by \"rule: NAME\"",
				 doc->file);
		for (size_t j = first; j < i; j++)
			if (!strcmp(docs->doc[j]->rule, doc->rule))
				args_add(&docs->problems,
					 "%s: rule %s is also in %s: give one another name",
					 doc->file, doc->rule, docs->doc[j]->file);
	}
}

void documents_load_policy(struct documents *docs, const char *folder)
{
	struct dirent **entry = NULL;
	int n = scandir(folder, &entry, is_document, alphasort);
	size_t first = docs->n;

	if (n < 0)
		args_add(&docs->problems, "%s: cannot read this folder of policy: %s", folder,
			 strerror(errno));
	for (int i = 0; i < n; i++) {
		CLEANUP_FREE char *path = io_format("%s/%s", folder, entry[i]->d_name);

		if (path)
			documents_load(docs, path, true);
		else
			docs->problems.failed = true;
		free(entry[i]);
	}
	free(entry);
	check_rules(docs, first);
}
