/* SPDX-License-Identifier: Apache-2.0 */
/* Runs in the monitor's place and says over the UART what the boot stage handed over.  A payload that begins with 'R' makes it raise the
 * counters; then it resets the board. */
#include "boot_table.h"
#include "map.h"
#include "qsafp_ed25519.h"

static volatile uint32_t *reg(uintptr_t at) { return (volatile uint32_t *)at; }

/* Cause of the trap that storing to *p took, 0 if it took none. */
uint64_t try_store(volatile uint32_t *p);

#include "arch.h"

_Noreturn void first_hart(uintptr_t hart, const qsafp_boot_table_t *table);
_Noreturn void other_hart(uintptr_t hart, const qsafp_boot_table_t *table);

static volatile uint64_t *const seen = (volatile uint64_t *)(MONITOR_RAM + 0x1000);

static void put(const char *text)
{
    while (*text)
        put_byte((uint8_t)*text++);
}

static void put_hex(const uint8_t *p, unsigned n)
{
    char two[3] = {0};
    while (n--) {
        two[0] = "0123456789abcdef"[*p >> 4];
        two[1] = "0123456789abcdef"[*p++ & 15];
        put(two);
    }
}

static void say(const char *name, uint64_t value)
{
    char digits[21] = {0}, *p = digits + 20;
    do
        *--p = (char)('0' + value % 10);
    while (value /= 10);
    put(name);
    put("=");
    put(p);
    put("\n");
}

static void say_image(const char *name, const qsafp_boot_image_t *image)
{
    put(name);
    put("=");
    put_hex(image->sha256, 32);
    put("\n");
    say(" slot", image->slot);
    say(" security_version", image->security_version);
    say(" counter", image->counter);
    say(" size", image->size);
}

static uint64_t store_faults(void)
{
    return try_store(reg(BOOT_BASE)) == STORE_FAULT && try_store(reg(BOOT_TABLE)) == STORE_FAULT && try_store(reg(MONITOR_BASE)) == STORE_FAULT &&
           try_store(reg(MONITOR_BASE + MONITOR_BYTES - 4)) == STORE_FAULT && try_store(reg(OWN)) == STORE_FAULT && try_store(reg(MONITOR_RAM)) == 0;
}

static void say_signature(const qsafp_boot_table_t *table)
{
    static const uint8_t seed[32] = {1, 2, 3}, msg[] = "boot";
    uint8_t secret[64] = {1, 2, 3}, sig[64];
    table->ed25519_public(secret + 32, seed);
    table->ed25519_sign(sig, secret, msg, 4);
    put("signature=");
    put_hex(sig, 64);
    put("\n");
    say("verified", !table->ed25519_verify(sig, secret + 32, msg, 4));
    sig[63] ^= 0x10;
    say("forged", !table->ed25519_verify(sig, secret + 32, msg, 4));
}

void other_hart(uintptr_t hart, const qsafp_boot_table_t *table)
{
    seen[hart] = table == (const void *)BOOT_TABLE && locked() && store_faults() ? 1 : 2;
    for (;;)
        __asm__ volatile("wfi");
}

void first_hart(uintptr_t hart, const qsafp_boot_table_t *table)
{
    uint8_t digest[32];
    say("hart", hart);
    say("table", table == (const void *)BOOT_TABLE && table->magic == QSAFP_BOOT_MAGIC && table->version == QSAFP_BOOT_VERSION);
    say("locked", locked() && store_faults());
    for (unsigned i = 1; i <= OTHERS; i++) {
        while (seen[i] != 1 && seen[i] != 2)
            ;
        say("locked", seen[i] == 1);
    }
    say_image("monitor", &table->monitor);
    say_image("payload", &table->payload);
    table->sha256(digest, (const void *)PAYLOAD_BASE, table->payload.size);
    say("payload in memory", (uint64_t)table->equal(digest, table->payload.sha256, 32));
    say_signature(table);
    if (*(const char *)PAYLOAD_BASE == 'R')
        say("raised", !table->counter_raise());
    put("end\n");
    reset_board();
    for (;;)
        __asm__ volatile("wfi");
}
