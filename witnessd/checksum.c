#include "witnessd/checksum.h"

static uint64_t sum_add(uint64_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint64_t)bytes[i] << 8 | bytes[i + 1];
	if (len % 2 != 0)
		sum += (uint64_t)bytes[len - 1] << 8;
	return sum;
}

static uint16_t sum_fold(uint64_t sum)
{
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

uint16_t checksum_of(const uint8_t *bytes, size_t len)
{
	return sum_fold(sum_add(0, bytes, len));
}

uint16_t checksum_of_segment(const struct ip *from, const struct ip *to, uint8_t protocol,
			     const uint8_t *bytes, size_t len)
{
	uint64_t sum = sum_add(0, from->bytes, from->len);

	sum = sum_add(sum, to->bytes, to->len);
	/* An IPv4 pseudo-header has the same numbers in fewer bytes. */
	sum += protocol + (len & 0xffff) + (len >> 16);
	return sum_fold(sum_add(sum, bytes, len));
}
