/* SPDX-License-Identifier: Apache-2.0 */
/* Private: flags of an audit record. */
#ifndef QSAFP_RECORD_PRIVATE_H
#define QSAFP_RECORD_PRIVATE_H

enum { RECORD_WALL = 1, RECORD_SEALED = 2, RECORD_EVIDENCE = 4, RECORD_REPORTED = 8, RECORD_FLAGS = 15 };

#endif
