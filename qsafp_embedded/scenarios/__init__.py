# SPDX-License-Identifier: Apache-2.0
"""Scenarios: real runs of real processes that assert what must hold and say what they measured (``qsafp test``)."""
