/* SPDX-License-Identifier: Apache-2.0 */
/* How this daemon reaches others: by what it was given to prove itself, or by its launcher. */

#include "node/daemon.h"
#include "node/dial.h"

int daemon_dial(struct daemon *d, const char *node, dial_fn *fn, void *arg, struct dial **ret,
		struct error *err)
{
	struct dial_params params = {
		.loop = d->p.loop, .greet = &d->greeting, .launches = d->launches};

	return dial_start(&params, node, fn, arg, ret, err);
}
