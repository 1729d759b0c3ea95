# SPDX-License-Identifier: Apache-2.0
"""The guard: the process that holds the permission (architecture decision 2)."""
