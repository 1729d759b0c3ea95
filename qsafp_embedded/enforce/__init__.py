# SPDX-License-Identifier: Apache-2.0
"""Containment from outside the workload: hold, roll back, restart (HW-12, architecture decision 10)."""
