/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QSAFP_PROTECT_H
#define QSAFP_PROTECT_H

/* On every hart before it leaves M-mode. */
void protect(void);

#endif
