/* SPDX-License-Identifier: Apache-2.0 */
#define printf(...) ((void)0)
