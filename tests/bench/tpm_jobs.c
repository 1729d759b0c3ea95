/* SPDX-License-Identifier: Apache-2.0 */
/* The guard's own TPM jobs, one after the other, timed: PLACE N.  Prints "sign|increment|extend NS", N lines of each. */
#include "../../board_ports/linux/tpm.c"
#include "../../board_ports/linux/tpm_key.c"
#include "../../board_ports/linux/tpm_nv.c"

uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What only a guard has. */
int fail(host_t *h, const char *fmt, ...) { return h && fmt ? -1 : -1; }
bool serve_turn(host_t *h, int most_ms) { return h && most_ms; }
int tpm_open_ak(struct tpm *t) { return t ? -1 : -1; }
int tpm_unseal(host_t *h) { return h ? -1 : -1; }

static int timed(const char *name, struct tpm *t, int (*job)(struct tpm *t))
{
    uint64_t begun = boot_ns();
    if (job(t))
        return -1;
    printf("%s %llu\n", name, (unsigned long long)(boot_ns() - begun));
    return 0;
}

static int raise_counter(struct tpm *t)
{
    t->nv.target = t->nv.counter + 1;
    return nv_commit(t);
}

static int next_anchor(struct tpm *t)
{
    memcpy(t->nv.before, t->nv.anchor, 32);
    t->nv.head[0]++;
    return nv_anchor(t);
}

static int prepare(struct tpm *t)
{
    static tpm_made_t made;
    if (tpm_make(t, &DEVICE, &made))
        return -1;
    tpm_unlink(t);
    t->nv.base = 0x01815100;
    t->open = tpm_load_key;
    if (tpm_parse(t, &DEVICE, &t->key_blobs, made.file, made.n) || nv_make(t) || nv_look(t))
        return -1;
    t->nv.next_floor = t->nv.floor;
    return 0;
}

int main(int argc, char **argv)
{
    char why[256] = "usage: tpm_jobs PLACE N";
    struct tpm *t = argc == 3 ? tpm_new(argv[1], why, sizeof why) : 0;
    int err = t ? prepare(t) : -1;
    for (int n = argc == 3 ? atoi(argv[2]) : 0; n > 0 && !err; n--)
        err = timed("sign", t, sign_now) || timed("increment", t, raise_counter) || timed("extend", t, next_anchor) ? -1 : 0;
    if (err)
        fprintf(stderr, "%s\n", t ? t->why : why);
    if (t)
        tpm_end(t);
    return err ? 1 : 0;
}
