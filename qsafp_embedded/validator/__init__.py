# SPDX-License-Identifier: Apache-2.0
"""A validator: decides by policy on requests of devices it knows, and signs (HW-7, OC-1, OC-2)."""
