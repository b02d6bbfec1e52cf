/* renewal.h: when a certificate is renewed: at two thirds of its life. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* This cluster's certificates begin so long before they are made, for clocks that are behind. Who
 * has only the certificate adds it to the begin to know when it was issued. */
enum { RENEWAL_BACKDATE_MS = 3600 * 1000 };

/* Times in milliseconds since 1970. */
int64_t renewal_due_ms(int64_t issued_ms, int64_t not_after_ms);
/* Also if its life ended before it began, or it was issued by a clock that was ahead. */
bool renewal_is_due(int64_t issued_ms, int64_t not_after_ms, int64_t now_ms);
