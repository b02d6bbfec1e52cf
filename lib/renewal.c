#include "lib/renewal.h"

int64_t renewal_due_ms(int64_t issued_ms, int64_t not_after_ms)
{
	if (not_after_ms <= issued_ms)
		return issued_ms;
	return issued_ms + (not_after_ms - issued_ms) / 3 * 2;
}

bool renewal_is_due(int64_t issued_ms, int64_t not_after_ms, int64_t now_ms)
{
	return now_ms >= renewal_due_ms(issued_ms, not_after_ms) || now_ms < issued_ms;
}
