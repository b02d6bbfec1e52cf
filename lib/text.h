/* text.h: questions about text that more than one room asks. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole decimal number in min..max, nothing before or behind it.
 * 0 and *ret set; -EINVAL (not a number) or -ERANGE. */
int text_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
/* A number with a unit: "250ms", "3s", "5m", "24h", "90d"; the unit is required.
 * 0 and *ret_ms set; -EINVAL or -ERANGE (over 100 years). */
int text_to_duration_ms(const char *text, uint64_t *ret_ms);
/* Valid UTF-8 (RFC 3629), no zero byte. */
bool text_is_utf8(const void *data, size_t len);
/* Makes of any string one that is fit to be shown: at most `max` bytes, cut behind a whole
 * character; control characters become spaces, and what is no UTF-8 question marks. */
void text_tame(char *text, size_t max);
/* Is it one of these? */
bool text_among(const char *text, char *const *list, size_t count);
/* Damerau-Levenshtein distance, for "did you mean". Both at most 64 bytes, else SIZE_MAX. */
size_t text_distance(const char *a, const char *b);
/* The candidate (NULL-terminated list) nearest to `word`, NULL if none is near enough to be meant.
 */
const char *text_nearest(const char *word, const char *const *candidates);
