/* Any bytes of the network as ARP and neighbour discovery packets, and as entries of a roll: they
 * are claims or none, and what is read can be written again. The first byte chooses. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/roll.h"
#include "witnessd/neighbour.h"
#include "witnessd/tickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void claims(uint16_t protocol, const char *address, const uint8_t *data, size_t size)
{
	/* Exactly as long, so that a look behind the end is seen. */
	uint8_t *copy = malloc(size);
	uint8_t mac[NEIGHBOUR_MAC];
	struct ip ip;

	if (size > 0)
		memcpy(copy, data, size);
	if (ip_parse(address, &ip) != 0)
		abort();
	neighbour_claims(protocol, copy, size, &ip, mac);
	free(copy);
}

static void entry(const uint8_t *data, size_t size)
{
	uint8_t bytes[ROLL_BYTES_MAX];
	uint8_t packet[TICKLE_BYTES];
	struct roll_ends ends;
	struct roll roll = {0};

	if (roll_unpack(data, size, &ends) != 0)
		return;
	if (roll_pack(&ends, bytes) != size || memcmp(bytes, data, size) != 0 ||
	    tickle_packet(&ends, packet) > sizeof(packet))
		abort();
	roll_add(&roll, 1, &ends);
	roll_remove(&roll, 1, &ends);
	if (roll.entries.count != 0)
		abort();
	roll_free(&roll);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % 3) {
	case 0:
		claims(0x0806, "10.0.0.5", data + 1, size - 1);
		break;
	case 1:
		claims(0x86dd, "fd00::5", data + 1, size - 1);
		break;
	default:
		entry(data + 1, size - 1);
		break;
	}
	return 0;
}
