/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_EXIT_CODE_H
#define WISP_MOVER_EXIT_CODE_H

/* How wisp-mover ends a hand-over beside success and failure; wisp vm ends so as well. */
#define EXIT_UNDECIDED 3 /* it was cut off */
#define EXIT_UNTOLD 4	 /* the VM runs here, and where it came from that may not be known */

#endif
