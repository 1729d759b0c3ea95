# SPDX-License-Identifier: Apache-2.0
"""Boards and what is on them."""
