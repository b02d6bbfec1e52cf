#include "lib/text.h"

#include <errno.h>
#include <string.h>

enum { TEXT_DISTANCE_MAX = 64 };

int text_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t value = 0;

	if (*text == '\0')
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return -ERANGE;
	}
	if (value < min || value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int text_to_duration_ms(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {
		{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
	};
	const uint64_t longest = 36525ULL * 86400000;
	char digits[24];
	size_t len = strspn(text, "0123456789");
	uint64_t number;
	int rv;

	if (len == 0 || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len);
	digits[len] = '\0';
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text + len, units[i].unit) != 0)
			continue;
		rv = text_to_u64(digits, 0, longest / units[i].ms, &number);
		if (rv == 0)
			*ret_ms = number * units[i].ms;
		return rv;
	}
	return -EINVAL;
}

/* Length of the UTF-8 sequence at `s`, 0 if it is none (RFC 3629 section 4). */
static size_t utf8_sequence(const uint8_t *s, size_t left)
{
	uint8_t low = 0x80;
	uint8_t high = 0xbf;
	size_t len;

	if (s[0] >= 0x01 && s[0] <= 0x7f)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (left < len)
		return 0;
	/* Overlong forms, surrogates and values above U+10FFFF show in the second byte. */
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return len;
}

bool text_is_utf8(const void *data, size_t len)
{
	const uint8_t *s = data;

	for (size_t i = 0; i < len;) {
		size_t step = utf8_sequence(s + i, len - i);

		if (step == 0)
			return false;
		i += step;
	}
	return true;
}

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

bool text_among(const char *text, char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i], text) == 0)
			return true;
	return false;
}

size_t text_distance(const char *a, const char *b)
{
	size_t rows[3][TEXT_DISTANCE_MAX + 1];
	size_t a_len = strlen(a);
	size_t b_len = strlen(b);
	size_t *before = rows[0];
	size_t *above = rows[1];
	size_t *row = rows[2];

	if (a_len > TEXT_DISTANCE_MAX || b_len > TEXT_DISTANCE_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= b_len; j++)
		above[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t *oldest = before;

		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			row[j] = smallest(above[j] + 1, row[j - 1] + 1,
					  above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}
		before = above;
		above = row;
		row = oldest;
	}
	return above[b_len];
}

const char *text_nearest(const char *word, const char *const *candidates)
{
	const char *best = NULL;
	/* Further than a third of the word is another word; one slip is always allowed. */
	size_t len = strlen(word);
	size_t best_distance = (len < 4 ? 1 : len / 3 + 1) + 1;

	for (; *candidates != NULL; candidates++) {
		size_t distance = text_distance(word, *candidates);

		if (distance < best_distance) {
			best_distance = distance;
			best = *candidates;
		}
	}
	return best;
}

void text_tame(char *text, size_t max)
{
	size_t len = strlen(text);
	bool utf8;

	if (len > max) {
		len = max;
		while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
			len--;
		text[len] = '\0';
	}
	utf8 = text_is_utf8(text, len);
	for (size_t i = 0; i < len; i++) {
		unsigned char byte = (unsigned char)text[i];

		if (byte < 0x20 || byte == 0x7f)
			text[i] = ' ';
		else if (byte >= 0x80 && !utf8)
			text[i] = '?';
	}
}
