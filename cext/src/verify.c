/* SPDX-License-Identifier: Apache-2.0 */
/* One COSE signature: edge cases are refused here, before any library is asked (decision 12). */
#include "core.h"
#include "qsafp_ed25519_edge.h"
#include "qsafp_mldsa65.h"
#include "shape.h"

enum { ED25519_SIG = 64, MLDSA65_SIG = 3309 };

int cose_verify(const qsafp_set_io_t *io, qsafp_tbs_t *what, const qsafp_cose_sig *s, const uint8_t *pk)
{
    qsafp_mldsa65_msg_t m = {.msg = io->scratch};
    what->protected_ = s->protected_;
    int err = qsafp_tbs(what, io->scratch, io->cap, &m.msg_len);
    if (err)
        return err;
    if (s->alg == QSAFP_ALG_MLDSA65)
        err = s->sig.len != MLDSA65_SIG || qsafp_mldsa65_verify(pk, &m, s->sig.p);
    else
        err = s->sig.len != ED25519_SIG || !qsafp_ed25519_edge_ok(s->sig.p, pk) || io->port->verify_ed25519(io->ctx, s->sig.p, pk, m.msg, m.msg_len);
    return err ? QSAFP_E_BAD_SIGNATURE : 0;
}

int vote_verify(qsafp_t *q, qsafp_tbs_t *what, const qsafp_cose_sig *s, int index)
{
    const qsafp_validator_t *v = &q->set.v[index];
    const qsafp_set_io_t io = {.port = q->port, .ctx = q->ctx, .scratch = q->scratch, .cap = sizeof q->scratch};
    return cose_verify(&io, what, s, s->alg == QSAFP_ALG_MLDSA65 ? v->mldsa65 : v->ed25519);
}
