/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_EXIT_CODE_H
#define WISP_MOVER_EXIT_CODE_H

/*
 * How wisp-mover ends a hand-over beside success and failure; wisp vm ends so as well. After each
 * of them --again goes on.
 */
#define EXIT_UNDECIDED 3 /* it was cut off */
#define EXIT_UNTOLD 4	 /* the VM runs here, and where it came from that may not be known */
#define EXIT_STAYED 5	 /* it is where it was, and the other side may not know */

#endif
