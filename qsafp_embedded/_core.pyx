# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""The binding: literal and thin.  Lengths are checked here, meaning is checked in C."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, mmap, munmap
from posix.time cimport clock_gettime, timespec

from collections import namedtuple
from os import fstat

from qsafp_embedded._tables import Error
from qsafp_embedded.errors import AuditError, FormatError, QsafpError

cimport qsafp_embedded.cqsafp as c

cdef extern from *:
    """
    static const qsafp_gate_page_t NO_PAGE; /* zeroed memory is closed */
    """
    const c.qsafp_gate_page_t NO_PAGE

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        pass
    ctypedef struct PyMethodDescrObject:
        PyMethodDef *d_method
    object PyDescr_NewMethod(PyTypeObject *owner, PyMethodDef *method)

Tag = namedtuple("Tag", ["number", "value"])
Tag.__doc__ = "A CBOR tag: number (int) and the tagged value."

cdef int DEPTH = 8


def error_name(int err):
    """Name of a negative core status from the error table, e.g. ``MALFORMED``."""
    try:
        return Error(-err).name
    except ValueError:
        return f"error {err}"


cdef int check(int err, str what) except -1:
    if err:
        raise FormatError(f"{what}: {error_name(err)}")
    return 0


# ---- CBOR ----

cdef object head_bytes(int major, uint64_t arg):
    cdef uint8_t buf[9]
    cdef c.qsafp_cbor_w w = c.qsafp_cbor_writer(buf, sizeof(buf))
    c.qsafp_cbor_put(&w, major, arg)
    return PyBytes_FromStringAndSize(<char *> buf, w.p - buf)


cdef object dump(object v, int depth):
    if depth > DEPTH + 1:
        raise FormatError("CBOR: deeper than 8")
    if v is None:
        return b"\xf6"
    if v is True:
        return b"\xf5"
    if v is False:
        return b"\xf4"
    if isinstance(v, int):
        if v >= 0:
            return head_bytes(c.QSAFP_CBOR_UINT, v)
        return head_bytes(c.QSAFP_CBOR_NEG, <object> -1 - v)
    if isinstance(v, (bytes, bytearray, memoryview)):
        return head_bytes(c.QSAFP_CBOR_BSTR, len(v)) + bytes(v)
    if isinstance(v, str):
        text = v.encode()
        return head_bytes(c.QSAFP_CBOR_TSTR, len(text)) + text
    if isinstance(v, Tag):
        return head_bytes(c.QSAFP_CBOR_TAG, v.number) + dump(v.value, depth + 1)
    if isinstance(v, (list, tuple)):
        return b"".join([head_bytes(c.QSAFP_CBOR_ARRAY, len(v)), *[dump(i, depth + 1) for i in v]])
    if isinstance(v, dict):
        pairs = sorted((dump(k, depth + 1), dump(i, depth + 1)) for k, i in v.items())
        return b"".join([head_bytes(c.QSAFP_CBOR_MAP, len(pairs)), *[k + i for k, i in pairs]])
    raise FormatError(f"CBOR: no encoding for {type(v).__name__}")


def cbor_dumps(v):
    """Encode as deterministic CBOR (RFC 8949 4.2.1).

    Args: v: None, bool, int (64 bits), bytes, str, list, dict or Tag.  Raises: FormatError for anything else.
    """
    try:
        return dump(v, 0)
    except OverflowError as big:
        raise FormatError("CBOR: integer beyond 64 bits") from big


cdef object load(c.qsafp_cbor_r *r, int depth):
    cdef int major = c.qsafp_cbor_peek(r)
    cdef uint64_t n
    cdef c.qsafp_bytes b
    if r.err or major < 0 or depth > DEPTH:
        check(r.err or (major if major < 0 else -22), "CBOR")
    if major == c.QSAFP_CBOR_UINT:
        n = c.qsafp_cbor_head(r, major)
        check(r.err, "CBOR")
        return n
    if major == c.QSAFP_CBOR_NEG:
        n = c.qsafp_cbor_head(r, major)
        check(r.err, "CBOR")
        return -1 - <object> n
    if major == c.QSAFP_CBOR_BSTR or major == c.QSAFP_CBOR_TSTR:
        b = c.qsafp_cbor_bstr(r) if major == c.QSAFP_CBOR_BSTR else c.qsafp_cbor_tstr(r)
        check(r.err, "CBOR")
        raw = PyBytes_FromStringAndSize(<char *> b.p, b.len)
        return raw if major == c.QSAFP_CBOR_BSTR else raw.decode()
    if major == c.QSAFP_CBOR_TAG and not depth:  # around the whole object, nowhere inside
        n = c.qsafp_cbor_head(r, major)
        check(r.err, "CBOR")
        return Tag(n, load(r, depth + 1))
    if major == c.QSAFP_CBOR_ARRAY or major == c.QSAFP_CBOR_MAP:
        n = c.qsafp_cbor_head(r, major)
        check(r.err or (-22 if n > <uint64_t> (r.end - r.p) else 0), "CBOR")
        if major == c.QSAFP_CBOR_ARRAY:
            return [load(r, depth + 1) for _ in range(n)]
        return load_map(r, n, depth)
    if c.qsafp_cbor_null(r):
        return None
    value = c.qsafp_cbor_bool(r)
    check(r.err, "CBOR")
    return bool(value)


cdef object load_map(c.qsafp_cbor_r *r, uint64_t n, int depth):
    out = {}
    prev = b""
    for _ in range(n):
        start = r.p
        key = load(r, depth + 1)
        raw = PyBytes_FromStringAndSize(<char *> start, r.p - start)
        if isinstance(key, bool) or not isinstance(key, (int, str, bytes)) or (prev and raw <= prev):  # true is 1 to a dict
            raise FormatError("CBOR: map keys out of order, repeated, or neither number nor string (NOT_CANONICAL)")
        prev = raw
        out[key] = load(r, depth + 1)
    return out


def cbor_loads(const uint8_t[::1] data not None):
    """Decode one item of deterministic CBOR that fills ``data``.  Raises: FormatError for anything else."""
    cdef c.qsafp_cbor_r r = c.qsafp_cbor_reader(&data[0] if data.shape[0] else NULL, data.shape[0])
    v = load(&r, 0)
    check(c.qsafp_cbor_done(&r), "CBOR")
    return v


# ---- claims ----

cdef int copy(uint8_t *to, object value, size_t n, str name) except -1:
    cdef bytes b = bytes(value)
    if len(b) != <Py_ssize_t> n:
        raise FormatError(f"claim {name}: {len(b)} bytes instead of {n}")
    memcpy(to, <const uint8_t *> b, n)
    return 0


cdef object take(const uint8_t *p, size_t n):
    return PyBytes_FromStringAndSize(<char *> p, n)


def claims_encode(dict d not None):
    """Lease claims as CWT bytes (docs/formats.md).  Keys: the fields of qsafp_claims_t.  Raises: FormatError, KeyError."""
    cdef c.qsafp_claims_t k
    cdef uint8_t out[512]
    cdef size_t n = 0
    memset(&k, 0, sizeof(k))
    k.iat, k.duration_ms, k.serial = d["iat"], d["duration_ms"], d["serial"]
    k.log_size, k.level, k.epoch = d["log_size"], d["level"], d["epoch"]
    k.lab = d["lab"]
    k.has_failsafe = d.get("has_failsafe", False)
    k.failsafe_seq = d.get("failsafe_seq", 0)
    copy(k.failsafe_hash, d.get("failsafe_hash", bytes(32)), 32, "failsafe_hash")
    copy(k.lease_id, d["lease_id"], 16, "lease_id")
    copy(k.nonce, d["nonce"], 16, "nonce")
    copy(k.ueid, d["ueid"], 33, "ueid")
    copy(k.model, d["model"], 32, "model")
    copy(k.log_id, d["log_id"], 32, "log_id")
    copy(k.log_root, d["log_root"], 32, "log_root")
    copy(k.set_id, d["set_id"], 16, "set_id")
    for i in range(4):
        k.policy_ms[i] = d["policy_ms"][i]
    check(c.qsafp_claims_encode(&k, out, sizeof(out), &n), "claims")
    return take(out, n)


def claims_decode(const uint8_t[::1] data not None):
    """The claims of a lease payload as a dict.  Raises: FormatError for bytes that would not encode back to themselves."""
    cdef c.qsafp_claims_t k
    check(c.qsafp_claims_decode(&k, &data[0] if data.shape[0] else NULL, data.shape[0]), "claims")
    return {
        "iat": k.iat, "lease_id": take(k.lease_id, 16), "nonce": take(k.nonce, 16), "ueid": take(k.ueid, 33),
        "duration_ms": k.duration_ms, "serial": k.serial, "model": take(k.model, 32), "log_id": take(k.log_id, 32),
        "log_size": k.log_size, "log_root": take(k.log_root, 32), "policy_ms": [k.policy_ms[i] for i in range(4)],
        "has_failsafe": bool(k.has_failsafe), "failsafe_seq": k.failsafe_seq, "failsafe_hash": take(k.failsafe_hash, 32),
        "level": k.level, "lab": bool(k.lab), "epoch": k.epoch, "set_id": take(k.set_id, 16),
    }


# ---- hashes, signatures, tree, records ----

def sha256(const uint8_t[::1] data not None):
    """SHA-256 of the bytes (FIPS 180-4)."""
    cdef uint8_t out[32]
    c.qsafp_sha256(out, &data[0] if data.shape[0] else NULL, data.shape[0])
    return take(out, 32)


def edge_ok(const uint8_t[::1] sig not None, const uint8_t[::1] pk not None):
    """False for signatures and keys on which Ed25519 libraries disagree (architecture decision 12)."""
    if sig.shape[0] != 64 or pk.shape[0] != 32:
        return False
    return bool(c.qsafp_ed25519_edge_ok(&sig[0], &pk[0]))


def mldsa65_verify(const uint8_t[::1] pk not None, const uint8_t[::1] msg not None, const uint8_t[::1] sig not None):
    """True if ``sig`` (3,309 bytes) is an ML-DSA-65 signature of ``msg`` under ``pk`` (1,952 bytes), empty context (FIPS 204 5.3)."""
    cdef c.qsafp_mldsa65_msg_t m
    cdef int err
    if sig.shape[0] != 3309 or pk.shape[0] != 1952:
        return False
    m.msg, m.msg_len, m.ctx, m.ctx_len = &msg[0] if msg.shape[0] else NULL, msg.shape[0], NULL, 0
    with nogil:
        err = c.qsafp_mldsa65_verify_c(&pk[0], &m, &sig[0])
    return err == 0


cdef const uint8_t *exactly(const uint8_t[::1] b, Py_ssize_t n, str what) except NULL:
    if b.shape[0] != n:
        raise FormatError(f"{what}: {b.shape[0]} bytes instead of {n}")
    return &b[0]


def tree_leaf(const uint8_t[::1] record_hash not None):
    """Leaf hash of a record: SHA-256(0x00 || record hash) (RFC 9162 2.1.1)."""
    cdef uint8_t out[32]
    c.qsafp_tree_leaf(out, exactly(record_hash, 32, "record hash"))
    return take(out, 32)


cdef class Tree:
    """An RFC 9162 Merkle tree as the peaks of [0, size) (architecture decision 9)."""

    cdef c.qsafp_tree_t t

    def __cinit__(self, size=0, peaks=()):
        cdef uint64_t n = size
        memset(&self.t, 0, sizeof(self.t))
        if len(peaks) != bin(n).count("1") or n > c.QSAFP_SEQ_MAX:
            raise FormatError(f"tree: {len(peaks)} peaks do not make size {n}")
        self.t.size = <uint32_t> n
        for i, p in enumerate(peaks):
            copy(self.t.peak[i], p, 32, "peak")

    @property
    def size(self):
        """Number of leaves."""
        return self.t.size

    @property
    def peaks(self):
        """Roots of the perfect subtrees, left to right."""
        return [take(self.t.peak[i], 32) for i in range(bin(self.t.size).count("1"))]

    def append(self, const uint8_t[::1] leaf not None):
        """Append one leaf hash."""
        check(c.qsafp_tree_append(&self.t, exactly(leaf, 32, "leaf")), "tree")

    def root(self):
        """Root hash over all leaves."""
        cdef uint8_t out[32]
        c.qsafp_tree_root(&self.t, out)
        return take(out, 32)

    def extend(self, uint64_t start, uint64_t to, hashes):
        """Apply the compact range [start, to).  Raises: FormatError if it does not fit; then nothing changed."""
        cdef c.qsafp_range_t r
        if len(hashes) > 64:
            raise FormatError("tree: more than 64 hashes")
        if start > c.QSAFP_SEQ_MAX or to > c.QSAFP_SEQ_MAX:
            raise FormatError("tree: no log has 2^31 records")
        memset(&r, 0, sizeof(r))
        r.from_, r.to, r.count = <uint32_t> start, <uint32_t> to, len(hashes)
        for i, h in enumerate(hashes):
            copy(r.hash[i], h, 32, "range hash")
        check(c.qsafp_tree_extend(&self.t, &r), "tree")

    def copy(self):
        """An independent copy."""
        return Tree(self.size, self.peaks)


def record_hash(const uint8_t[::1] prev not None, const uint8_t[::1] rec not None):
    """Chain hash of a 256-byte record after the one whose hash is ``prev``."""
    cdef uint8_t out[32]
    c.qsafp_record_hash(out, exactly(prev, 32, "previous hash"), exactly(rec, 256, "record"))
    return take(out, 32)


def record_decode(const uint8_t[::1] rec not None):
    """Fields of a 256-byte record as a dict.  Raises: FormatError if it is none."""
    cdef c.qsafp_record_t r
    check(c.qsafp_record_decode(&r, exactly(rec, 256, "record")), "record")
    return {
        "event": r.event, "flags": r.flags, "seq": r.seq, "boot_ns": r.boot_ns, "wall_ms": r.wall_ms, "boot": r.boot, "reason": r.reason,
        "serial": r.serial, "model": take(r.model, 32), "evidence": take(r.evidence, 32), "data": take(r.data, 96),
        "hash": take(r.hash, 32), "seal": take(r.seal, 16),
    }


def audit_verify(const uint8_t[::1] records not None, const uint8_t[::1] prev not None):
    """Check the chain over whole records that follow the one whose hash is ``prev``; returns the last hash.

    Raises: AuditError whose ``index`` names the first record that fails.
    """
    cdef uint8_t head[32]
    cdef uint64_t bad = 0, n = records.shape[0] // 256
    cdef const uint8_t *p = &records[0] if records.shape[0] else NULL
    cdef int err
    if records.shape[0] % 256:
        raise AuditError(f"log: {records.shape[0]} bytes are not whole records", index=n)
    memcpy(head, exactly(prev, 32, "previous hash"), 32)
    with nogil:
        err = c.qsafp_audit_verify(p, n, head, &bad)
    if err:
        raise AuditError(f"record {bad} of {n} does not verify: {error_name(err)}", index=bad)
    return take(head, 32)


def seal_evolve(const uint8_t[::1] key not None):
    """K_(e+1) = SHA-256("qsafp-evolve" || K_e)."""
    cdef uint8_t k[32]
    memcpy(k, exactly(key, 32, "seal key"), 32)
    c.qsafp_seal_evolve(k)
    return take(k, 32)


def seal(const uint8_t[::1] key not None, const uint8_t[::1] head not None):
    """Seal of a record hash under the key of its epoch, 16 bytes."""
    cdef uint8_t out[16]
    c.qsafp_seal(out, exactly(key, 32, "seal key"), exactly(head, 32, "hash"))
    return take(out, 16)


# ---- frames ----

def crc16(const uint8_t[::1] data not None):
    """CRC-16 of command frames: poly 0x1021, init 0xFFFF."""
    return c.qsafp_crc16(&data[0] if data.shape[0] else NULL, data.shape[0])


def cobs_encode(const uint8_t[::1] data not None):
    """Consistent overhead byte stuffing, without delimiter."""
    cdef bytearray out = bytearray(data.shape[0] + data.shape[0] // 254 + 2)
    cdef uint8_t[::1] o = out
    n = c.qsafp_cobs_encode(&o[0], &data[0] if data.shape[0] else NULL, data.shape[0])
    return bytes(out[:n])


def cobs_decode(const uint8_t[::1] data not None):
    """Undo cobs_encode.  Raises: FormatError."""
    cdef bytearray out = bytearray(data.shape[0] + 1)
    cdef uint8_t[::1] o = out
    cdef size_t n = 0
    check(c.qsafp_cobs_decode(&o[0], &n, &data[0] if data.shape[0] else NULL, data.shape[0]), "COBS")
    return bytes(out[:n])


# ---- the gate ----

cdef uint64_t boot_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(7, &t)  # CLOCK_BOOTTIME
    return <uint64_t> t.tv_sec * 1000000000u + <uint64_t> t.tv_nsec


def now_ns():
    """The clock that lease time is measured on: CLOCK_BOOTTIME, ns."""
    return boot_ns()


cdef class GatePage:
    """A mapped gate page and its check (HW-5, docs/formats.md).  Closed until one is attached; ``_slow`` decides what a refusal does."""

    cdef const c.qsafp_gate_page_t *page
    cdef bint counter

    def __cinit__(self, *args, **kwargs):
        self.page = &NO_PAGE

    def __dealloc__(self):
        if self.page != &NO_PAGE:
            munmap(<void *> self.page, c.QSAFP_GATE_PAGE_BYTES)

    def _detach(self):
        old = <size_t> self.page
        self.page, self.counter = &NO_PAGE, False
        if old != <size_t> &NO_PAGE:
            munmap(<void *> old, c.QSAFP_GATE_PAGE_BYTES)

    def _attach(self, int fd):
        """Map the page behind ``fd`` read-only.  Raises: OSError, FormatError."""
        if fstat(fd).st_size < c.QSAFP_GATE_PAGE_BYTES:  # reading past its end would be a bus error
            raise FormatError("gate page: shorter than a page")
        cdef void *p = mmap(NULL, c.QSAFP_GATE_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0)
        if p == MAP_FAILED:
            raise OSError("the gate page cannot be mapped")
        if (<const c.qsafp_gate_page_t *> p).magic != c.QSAFP_GATE_MAGIC:
            munmap(p, c.QSAFP_GATE_PAGE_BYTES)
            raise FormatError("gate page: another version, or not a gate page; update qsafp_embedded here or in the guard")
        self._detach()
        self.page = <const c.qsafp_gate_page_t *> p
        self.counter = self.page.counter_hz != 0

    cdef bint open_now(self) noexcept nogil:
        if self.counter:
            return c.qsafp_gate_check_counter(self.page)
        return c.qsafp_gate_check_ns(self.page, boot_ns())

    def __bool__(self):
        if self.counter:
            if c.qsafp_gate_check_counter(self.page):
                return True
        elif c.qsafp_gate_check_ns(self.page, boot_ns()):
            return True
        return self._slow()

    @cython.binding(False)  # a plain method without arguments: see `direct`
    @cython.always_allow_keywords(False)
    def require(self):
        """Return if the gate is open; raise the LeaseRefused that says why not (HW-5)."""
        if self.counter:
            if c.qsafp_gate_check_counter(self.page):
                return
        elif c.qsafp_gate_check_ns(self.page, boot_ns()):
            return
        self._refuse()

    def _slow(self):
        return self.open_now()

    def _refuse(self):
        if not self._slow():
            raise QsafpError("the gate is closed")

    def _open(self):
        return bool(self.open_now())

    def _fields(self):
        """A consistent copy of the page's fields, under its seqlock."""
        cdef c.qsafp_gate_page_t p
        cdef uint32_t s = 0, e = 1
        for _ in range(1000):
            s = (<volatile c.qsafp_gate_page_t *> self.page).seq
            memcpy(&p, self.page, sizeof(p))
            e = (<volatile c.qsafp_gate_page_t *> self.page).seq
            if s == e and not s & 1:
                break
        return {
            "armed": p.armed == c.QSAFP_ARMED, "generation": 0 if p.armed == c.QSAFP_ARMED else p.armed, "deadline_ns": p.deadline_ns,
            "serial": p.serial, "status": p.status, "phase": p.phase, "reason": p.reason, "model": take(p.model, 32),
            "lease_id": take(p.lease_id, 16), "window_ns": p.window_ns, "counter_hz": p.counter_hz, "attached": self.page != &NO_PAGE,
        }


def direct(cls):
    """Class decorator: give a subclass of GatePage a ``require`` of its own.

    The interpreter calls a C method without detour only on objects of the very type that the method was made for.
    """
    cls.require = PyDescr_NewMethod(<PyTypeObject *> cls, (<PyMethodDescrObject *> GatePage.__dict__["require"]).d_method)
    return cls


# ---- the guard ----

cdef const char *kept(list strings, str text) except? NULL:
    """The C string, which lives as long as the list; NULL for an empty one."""
    if not text:
        return NULL
    strings.append(text.encode())
    return <bytes> strings[len(strings) - 1]


cdef object fill(c.qsafp_guard_options_t *o, dict d):
    memset(o, 0, sizeof(o[0]))
    copy(o.ueid, d["ueid"], 33, "ueid")
    copy(o.model, d["model"], 32, "model")
    copy(o.secret_key, d["secret_key"], 64, "secret_key")
    copy(o.device_pk, d["device_pk"], 64, "device_pk")
    copy(o.nonce_key, d["nonce_key"], 32, "nonce_key")
    copy(o.seal_key, d["seal_key"], 32, "seal_key")
    for i in range(4):
        o.policy_ms[i] = d["policy_ms"][i]
    o.duration_ms, o.stale_after_ms, o.tick_ms, o.drain_ms = d["duration_ms"], d["stale_after_ms"], d["tick_ms"], d["drain_ms"]
    o.level, o.linger_ms, o.evidence_max, o.agent_uid = d["level"], d["linger_ms"], d["evidence_max"], d["agent_uid"]
    o.degrade, o.watchdog_s, o.uart_baud, o.quote_pcrs = d["degrade"], d["watchdog_s"], d["uart_baud"], d["quote_pcrs"]
    o.tpm_nv, o.sealed, o.anchor_ms, o.anchor_min_ms = d["tpm_nv"], d["sealed"], d["anchor_ms"], d["anchor_min_ms"]
    strings = [d["run_dir"].encode(), d["state_dir"].encode(), d["sodium"].encode(), d["board"].encode(), d["set"]]
    o.run_dir, o.state_dir, o.sodium, o.board, o.set_doc = strings
    o.set_len = len(strings[4])
    o.watchdog, o.tpm, o.uart, o.lease = kept(strings, d["watchdog"]), kept(strings, d["tpm"]), kept(strings, d["uart"]), kept(strings, d["lease"])
    kind, device, o.log.hz, o.log.address, o.log.bytes, o.log.page = d["log"]
    o.log.kind, o.log.live_min, o.log.erase = <c.qsafp_log_kind_t> <int> kind, d["log_live_min"], d.get("log_erase", 0)
    o.log.device = kept(strings, device)
    for i, (chip, name, offset, flags, debounce_us) in enumerate(d["lines"][:c.LINES]):
        o.lines[i].chip, o.lines[i].name = kept(strings, chip), kept(strings, name)
        o.lines[i].offset, o.lines[i].flags, o.lines[i].debounce_us = offset, flags, debounce_us
    return strings


cdef int said(int err, const char *why) except -1 with gil:
    if err:
        raise QsafpError(why.decode())
    return 0


def tpm_create(str place not None):
    """Make a device key in the TPM of a TCTI configuration; returns x || y and the content of device.tpm.  Raises: QsafpError."""
    cdef uint8_t pk[64]
    cdef uint8_t file[c.QSAFP_TPM_KEY_MAX]
    cdef size_t n = sizeof(file)
    cdef char why[512]
    cdef bytes at = place.encode()
    cdef const char *where = at
    with nogil:
        said(c.qsafp_tpm_create(where, pk, file, &n, why, sizeof(why)), why)
    return take(pk, 64), take(file, n)


def tpm_attest(str place not None, uint32_t pcrs):
    """Make an attestation key in a TPM.

    Returns: x || y of it and of the endorsement key, whose certificate (DER, or empty), the content of attest.tpm, and what the PCRs
    of the bits ``pcrs`` hold, by number.  Raises: QsafpError.
    """
    cdef c.qsafp_attest_t a
    cdef char why[256]
    cdef bytes at = place.encode()
    cdef const char *where = at
    a.pcrs = pcrs
    with nogil:
        said(c.qsafp_tpm_attest(where, &a, why, sizeof(why)), why)
    values = {i: take(a.pcr[i], 32) for i in range(24) if pcrs >> i & 1}
    return take(a.ak, 64), take(a.ek, 64), take(a.certificate, a.certificate_len), take(a.file, a.file_len), values


def tpm_activate(str place not None, bytes file not None, bytes challenge not None):
    """Open an enroller's challenge to the key of attest.tpm; returns its secret, 32 bytes.  Raises: FormatError, QsafpError."""
    cdef c.qsafp_activate_t a
    cdef char why[256]
    cdef bytes at = place.encode()
    cdef const char *where = at
    a.file_len, a.challenge_len = len(file), len(challenge)
    if a.file_len > sizeof(a.file) or a.challenge_len > sizeof(a.challenge):
        raise FormatError("attest.tpm or the challenge is longer than any")
    memcpy(a.file, <const uint8_t *> file, a.file_len)
    memcpy(a.challenge, <const uint8_t *> challenge, a.challenge_len)
    with nogil:
        said(c.qsafp_tpm_activate(where, &a, why, sizeof(why)), why)
    return take(a.secret, 32)


def tpm_seal(str place not None, bytes seed not None, bytes nonce_key not None):
    """Seal a seed to the TPM of a TCTI configuration; returns the content of device.sealed.  Raises: QsafpError."""
    cdef uint8_t keys[64]
    cdef uint8_t file[c.QSAFP_TPM_KEY_MAX]
    cdef size_t n = 0
    cdef char why[512]
    cdef bytes at = place.encode()
    cdef const char *where = at
    copy(keys, seed + nonce_key, 64, "seed and nonce key")
    with nogil:
        said(c.qsafp_tpm_seal(where, keys, keys + 32, file, &n, why, sizeof(why)), why)
    return take(file, n)


def tpm_anchor(str place not None, uint32_t base):
    """Return what the log anchor among the NV indices from `base` on holds, 32 bytes.  Raises: QsafpError."""
    cdef uint8_t value[32]
    cdef char why[512]
    cdef bytes at = place.encode()
    cdef const char *where = at
    with nogil:
        said(c.qsafp_tpm_anchor(where, base, value, why, sizeof(why)), why)
    return take(value, 32)


def guard_create(dict options not None):
    """Enrol on blank stores (record 0 and the first state); returns the log id, 32 bytes.  Raises: QsafpError with the reason."""
    cdef c.qsafp_guard_options_t o
    cdef uint8_t log_id[32]
    cdef char why[512]
    keep = fill(&o, options)
    with nogil:
        said(c.qsafp_guard_create(&o, log_id, why, sizeof(why)), why)
    del keep
    return take(log_id, 32)


def guard_run(dict options not None):
    """Be the guard until SIGTERM or SIGINT; no Python runs meanwhile.  Raises: QsafpError with the reason it could not start."""
    cdef c.qsafp_guard_options_t o
    cdef char why[512]
    keep = fill(&o, options)
    with nogil:
        said(c.qsafp_guard_run(&o, why, sizeof(why)), why)
    del keep


cdef class SelfGuard:
    """A guard inside this program: **self-policed** (qsafp_embedded.guard.own).  Not for two threads at once."""

    cdef c.qsafp_guard_options_t o
    cdef c.qsafp_self_t *guard
    cdef object keep

    def __cinit__(self, dict options not None):
        """Start it.  Raises: QsafpError with the reason it could not start."""
        cdef char why[512]
        self.keep = fill(&self.o, options)
        with nogil:
            self.guard = c.qsafp_self_open(&self.o, why, sizeof(why))
        if self.guard == NULL:
            raise QsafpError(f"self-policed guard: {why.decode()}")

    def __dealloc__(self):
        c.qsafp_self_close(self.guard)

    def _alive(self):
        if self.guard == NULL:
            raise QsafpError("self-policed guard: closed")

    def wire(self):
        """Our end of its command socket: one frame a packet, answered by ``step``."""
        self._alive()
        return c.qsafp_self_wire(self.guard)

    def page(self):
        """Descriptor of the gate page."""
        self._alive()
        return c.qsafp_self_page(self.guard)

    def step(self):
        """Answer one frame, and write what the deadline thread latched."""
        self._alive()
        with nogil:
            c.qsafp_self_step(self.guard)

    def close(self):
        """Close the gate for good."""
        guard, self.guard = self.guard, NULL
        if guard != NULL:
            with nogil:
                c.qsafp_self_close(guard)


# ---- a log without a guard ----

cdef class OwnLog:
    """An audit log that this process keeps for itself: **self-policed**, no guard and no quorum stand behind it.

    For tests, and for programs that embed the core.  One folder per log; a second opening is refused.  Not for two threads at once.
    """

    cdef c.qsafp_own_log_t *log

    def __cinit__(self, path, *, bint create=False):
        """Open the log in folder ``path``, or make it there.  Raises: QsafpError with the reason."""
        cdef char why[512]
        cdef bytes raw = str(path).encode()
        cdef const char *where = raw
        with nogil:
            self.log = c.qsafp_own_log_open(where, create, why, sizeof(why))
        if self.log == NULL:
            raise QsafpError(f"self-policed log: {why.decode()}")

    def __dealloc__(self):
        if self.log != NULL:
            c.qsafp_own_log_close(self.log)

    cdef int done(self, int err) except -1:
        if err:
            raise QsafpError(f"self-policed log: {error_name(err)}")
        return 0

    cdef int need(self) except -1:
        if self.log == NULL:
            raise QsafpError("self-policed log: closed")
        return 0

    def append(self, uint16_t event, uint32_t reason=0, bytes data=None):
        """Append one record (HW-9); it is durable after ``sync``.

        Args: event, reason: numbers of the tables. data: at most 96 bytes.  Raises: QsafpError if the disk takes no more.
        """
        cdef uint8_t padded[96]
        cdef const uint8_t *p = NULL
        cdef int err
        self.need()
        if data is not None:
            if len(data) > 96:
                raise FormatError(f"event data: {len(data)} bytes, 96 fit")
            memset(padded, 0, sizeof(padded))
            memcpy(padded, <const uint8_t *> data, len(data))
            p = padded
        if c.qsafp_own_log_ready(self.log):
            err = c.qsafp_own_log_append(self.log, event, reason, p)
        else:
            with nogil:
                err = c.qsafp_own_log_append(self.log, event, reason, p)
        if err:
            self.done(err)

    def sync(self):
        """Return once everything appended is durable.  Raises: QsafpError."""
        cdef int err
        self.need()
        with nogil:
            err = c.qsafp_own_log_sync(self.log)
        self.done(err)

    def head(self):
        """Number of records ever written, and the hash of the last."""
        cdef uint8_t h[32]
        self.need()
        n = c.qsafp_own_log_size(self.log, h)
        return n, take(h, 32)

    def close(self):
        """Write what waits and close; the object is of no use afterwards."""
        log, self.log = self.log, NULL
        if log != NULL:
            with nogil:
                c.qsafp_own_log_close(log)
