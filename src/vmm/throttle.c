/* SPDX-License-Identifier: Apache-2.0 */
/* Throttled vCPUs: a timer kicks each out of the guest for its share of a period. */

#include "vmm/throttle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define PERIOD_NS 20000000ULL

struct throttle {
	struct loop_source *timer;
	const void *owner;
	uint8_t percent[];
};

static void on_period(void *arg)
{
	struct vm *vm = arg;

	for (unsigned i = 0; i < vm->nvcpus; i++)
		if (vm->throttle->percent[i])
			vcpu_hold(&vm->vcpus[i], PERIOD_NS * vm->throttle->percent[i] / 100);
}

int throttle_set(struct vm *vm, const uint8_t *percent, const void *owner, struct error *err)
{
	struct throttle *t;
	bool any = false;
	int r;

	for (unsigned i = 0; i < vm->nvcpus; i++)
		any |= percent[i] != 0;
	throttle_stop(vm);
	if (!any)
		return 0;
	t = calloc(1, sizeof(*t) + vm->nvcpus);
	if (!t)
		return error_errno(err, -ENOMEM, "throttle");
	t->owner = owner;
	memcpy(t->percent, percent, vm->nvcpus);
	r = loop_add_timer(vm->loop, on_period, vm, &t->timer);
	if (!r)
		r = loop_set_timer(t->timer, PERIOD_NS, PERIOD_NS);
	vm->throttle = t;
	if (r) {
		throttle_stop(vm);
		return error_errno(err, r, "throttle");
	}
	return 0;
}

void throttle_stop(struct vm *vm)
{
	if (!vm->throttle)
		return;
	loop_remove(&vm->throttle->timer);
	free(vm->throttle);
	vm->throttle = NULL;
}

bool throttle_owned_by(const struct vm *vm, const void *owner)
{
	return vm->throttle && vm->throttle->owner == owner;
}
