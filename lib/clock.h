/* clock.h: the only file that asks what time it is.
 *
 * Deciders get `now` as an argument; only loops and `main` call these.
 * Leases run on CLOCK_BOOTTIME (DESIGN S6): it never steps and counts suspend. */
#pragma once
#include <stdint.h>

/* Milliseconds since boot, suspend included. Never goes back. */
uint64_t clock_boottime_ms(void);
/* Milliseconds since 1970, as far as this board knows; may step. */
int64_t clock_realtime_ms(void);
/* "2026-11-21T04:38:00.123Z" of a real time in ms; `text` has room for 32 bytes. */
void clock_format_utc(int64_t realtime_ms, char text[32]);
