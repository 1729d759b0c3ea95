/* SPDX-License-Identifier: Apache-2.0 */
/* A monitor that nobody verified: its requests carry no measurement, and no counter rises. */
#include "monitor.h"

void boot_measure(qsafp_t *q)
{
    q->evidence = QSAFP_EVIDENCE_NONE;
    say("qsafp monitor: no boot stage verified this image\r\n");
}

int boot_keep(void) { return 0; }
