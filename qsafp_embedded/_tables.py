# SPDX-License-Identifier: Apache-2.0
"""Written by tools/tables.py from cext/tables.toml; edit that."""

from enum import IntEnum


class Status(IntEnum):
    """Lease status (gate page, command 0x01, HW-5)."""

    UNINITIALIZED = 0
    PENDING = 0x1DC6
    VALID = 0x5A3C
    EXPIRED = 0x2595
    DENIED = 0x4B69


class Phase(IntEnum):
    """Lease phase (OC-2)."""

    NONE = 0
    ACTIVE = 1
    WARNING = 2
    GRACE = 3
    FAILSAFE = 4


class Event(IntEnum):
    """Audit record event (HW-9)."""

    LEASE_ISSUED = 1
    LEASE_RENEWED = 2
    LEASE_EXPIRED = 3
    LEASE_DENIED = 4
    VALIDATOR_QUERY = 5
    VALIDATOR_RESPONSE = 6
    FAILSAFE_TRIGGERED = 7
    INFERENCE_STARTED = 8
    INFERENCE_COMPLETED = 9
    ANOMALY = 10
    BOOT = 11
    CONFIG_CHANGE = 12
    LOG_CREATED = 13
    LOG_PRUNED = 14
    EVIDENCE_PRUNED = 15
    WORKLOAD_REPORT = 16
    FAILSAFE_RELEASED = 17
    CONTAINMENT = 18
    LOG_ANCHORED = 19


class Reason(IntEnum):
    """Why a gate is closed or a fail-safe latched (HW-12)."""

    NONE = 0
    LEASE_EXPIRED = 1
    VALIDATOR_DENIED = 2
    ANOMALY = 3
    INVALID_SIGNATURES = 4
    NETWORK_TIMEOUT = 5
    MANUAL = 6
    BUS = 7
    LOG_FULL = 8
    TAMPER = 9


class RefusalClass(IntEnum):
    """Class of a validator's refusal."""

    DENY = 1
    RETRY = 2


class Refusal(IntEnum):
    """Refusal code: below 32 deny, from 32 retry."""

    POLICY = 1
    REVOKED = 2
    MODEL = 3
    MEASUREMENT = 4
    EQUIVOCATION = 5
    LOG_INCONSISTENT = 6
    REREGISTER = 7
    STALE = 32
    STATE_BEHIND = 33
    RATE = 34
    PENDING_HUMAN = 35
    EPOCH = 36
    LIMITS = 37


class Opcode(IntEnum):
    """Command frame opcode (HW-14)."""

    VERSION = 0
    STATUS = 1
    RENEW = 2
    READ_LOG = 3
    FAILSAFE = 4
    SET = 5
    LOG_EVENT = 6
    WORKLOAD = 7


class CommandStatus(IntEnum):
    """Status byte of an answer frame."""

    OK = 0
    CONFIRM = 1
    BAD_CRC = 16
    BAD_LENGTH = 17
    BAD_OPCODE = 18
    BAD_ARGUMENT = 19
    NOT_ALLOWED = 20
    BUSY = 21
    NO_REQUEST = 22
    REFUSED = 23
    INCOMPLETE = 24
    RATE_LIMITED = 25
    STORE_FAILED = 26
    KEY_FAILED = 27


class Error(IntEnum):
    """Core status: functions return 0 or one of these, negated."""

    ARGUMENT = 1
    MALFORMED = 2
    TRAILING = 3
    NOT_CANONICAL = 4
    UNKNOWN_ALGORITHM = 5
    UNKNOWN_SIGNER = 6
    DUPLICATE_SIGNER = 7
    BAD_SIGNATURE = 8
    TOO_FEW = 9
    MISMATCH = 10
    WRONG_DEVICE = 11
    WRONG_EPOCH = 12
    NO_REQUEST = 13
    LATCHED = 14
    STALE = 15
    STORE = 16
    CORRUPT = 17
    FULL = 18
    BUSY = 19
    ENTROPY = 20
    RANGE = 21
    TOO_LARGE = 22
    UNSUPPORTED = 23
    CLOCK = 24
    KEY = 25


class Evidence(IntEnum):
    """What a request's measurement is."""

    NONE = 0
    IMAGE = 1


class ImageKind(IntEnum):
    """What an image is (HW-2)."""

    MONITOR = 1
    PAYLOAD = 2


class Board(IntEnum):
    """Board an image is for."""

    HIFIVE_UNLEASHED = 1
    VIRT_AARCH64 = 2
    VIRT_ARMV7 = 3


class ImageVerdict(IntEnum):
    """Verdict on an image (HW-2); anything but GOOD is the reason of a refusal."""

    MAGIC = 1
    FORMAT = 2
    KIND = 3
    BOARD = 4
    OLD = 5
    LOAD = 6
    SIZE = 7
    ENTRY = 8
    RESERVED = 9
    ROOT_KEY = 10
    HASH = 11
    ED25519 = 12
    ML_DSA_65 = 13
    GOOD = 0x5A3C


__all__ = [
    "Board",
    "CommandStatus",
    "Error",
    "Event",
    "Evidence",
    "ImageKind",
    "ImageVerdict",
    "Opcode",
    "Phase",
    "Reason",
    "Refusal",
    "RefusalClass",
    "Status",
]
