/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_POWER_H
#define WISP_VMM_POWER_H

/*
 * The fixed ports behind ACPI: sleep control and status, reset, power button event and the
 * guest's panic report. dsdt.asl and the FADT name the same numbers.
 */

struct error;
struct vm;

#define POWER_PORT 0x600	  /* 16 ports */
#define POWER_SLEEP_CONTROL 0x600 /* FADT SLEEP_CONTROL_REG */
#define POWER_SLEEP_STATUS 0x601  /* FADT SLEEP_STATUS_REG */
#define POWER_RESET 0x602	  /* FADT RESET_REG */
#define POWER_RESET_VALUE 1
#define POWER_EVENTS 0x603 /* read by _EVT: pending events; cleared by the read */
#define POWER_EVENT_BUTTON 0x01
#define POWER_EVENT_GENERATION 0x02 /* the guest is a copy now: ACPI_GENERATION changed */
#define POWER_PANIC 0x604	    /* pvpanic: bit 0 panicked, bit 1 crash kernel was loaded */
#define POWER_SLEEP_TYPE_S5 5	    /* SLP_TYP of \_S5 */
#define POWER_IRQ 9		    /* of the event device */

int power_create(struct vm *vm, struct error *err);

/* Presses the power button. VM's lock. */
void power_button(struct vm *vm);

/* Gives the guest a new generation id and tells it. VM's lock. */
void power_new_generation(struct vm *vm);

#endif
