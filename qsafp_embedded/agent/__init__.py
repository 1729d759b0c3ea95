# SPDX-License-Identifier: Apache-2.0
"""The agent: carries requests to validators and answers back, and is what an operator sees.  It is trusted for nothing."""
