/* The packets about addresses: bytes as the RFCs and a packet capture have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "witnessd/checksum.h"
#include "witnessd/neighbour.h"
#include "witnessd/tickle.h"

static const uint8_t mac[6] = {2, 0x11, 0x22, 0x33, 0x44, 0x55};

static struct ip ip_of(const char *text)
{
	struct ip ip;

	assert_int_equal(ip_parse(text, &ip), 0);
	return ip;
}

/* RFC 1071, 3: the sum of these bytes is ddf2. */
static void test_checksum(void **state)
{
	static const uint8_t bytes[8] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	(void)state;
	assert_int_equal(checksum_of(bytes, 8), (uint16_t)~0xddf2);
	assert_int_equal(checksum_of(bytes, 1), 0xffff);
}

static void test_arp(void **state)
{
	static const uint8_t probe[28] = {0, 1, 8, 0, 6, 4, 0, 1, 2, 0x11, 0x22, 0x33, 0x44, 0x55,
					  0, 0, 0, 0, 0, 0, 0, 0, 0, 0,	   10,	 0,    0,    5};
	struct ip ip = ip_of("10.0.0.5");
	struct ip other = ip_of("10.0.0.6");
	struct neighbour_packet p;
	uint8_t found[6];

	(void)state;
	neighbour_probe(&ip, mac, &p);
	assert_int_equal(p.protocol, 0x0806);
	assert_int_equal(p.len, sizeof(probe));
	assert_memory_equal(p.bytes, probe, sizeof(probe));
	/* Who asks claims nothing. */
	assert_false(neighbour_claims(0x0806, p.bytes, p.len, &ip, found));
	for (unsigned turn = 0; turn < 2; turn++) {
		neighbour_announce(&ip, mac, turn, &p);
		assert_int_equal(p.bytes[7], turn + 1); /* request, reply */
		assert_memory_equal(p.bytes + 14, p.bytes + 24, 4);
		assert_int_equal(p.to[0], 0xff);
		assert_true(neighbour_claims(0x0806, p.bytes, p.len, &ip, found));
		assert_memory_equal(found, mac, 6);
		assert_false(neighbour_claims(0x0806, p.bytes, p.len, &other, found));
		assert_false(neighbour_claims(0x0806, p.bytes, p.len - 1, &ip, found));
		assert_false(neighbour_claims(0x86dd, p.bytes, p.len, &ip, found));
		p.bytes[5] = 16;
		assert_false(neighbour_claims(0x0806, p.bytes, p.len, &ip, found));
	}
}

/* The checksum of a whole ICMPv6 message or TCP segment with its own in it is 0. */
static uint16_t sum_left(const uint8_t *packet, size_t len, uint8_t protocol)
{
	size_t head = packet[0] >> 4 == 4 ? 20 : 40;
	size_t ip_len = head == 20 ? 4 : 16;
	struct ip from = ip_of_bytes(packet + (head == 20 ? 12 : 8), ip_len);
	struct ip to = ip_of_bytes(packet + (head == 20 ? 16 : 24), ip_len);

	return checksum_of_segment(&from, &to, protocol, packet + head, len - head);
}

static void test_nd(void **state)
{
	static const uint8_t solicited[16] = {0xff, 2, [11] = 1, [12] = 0xff, [15] = 5};
	struct ip ip = ip_of("fd00::5");
	struct neighbour_packet p;
	uint8_t found[6];

	(void)state;
	neighbour_probe(&ip, mac, &p);
	assert_int_equal(p.protocol, 0x86dd);
	assert_int_equal(p.len, 64);
	assert_memory_equal(p.bytes + 24, solicited, 16);
	assert_int_equal(p.bytes[40], 135);
	assert_int_equal(sum_left(p.bytes, p.len, 58), 0);
	assert_int_equal(p.to[0], 0x33);
	assert_int_equal(p.to[5], 5);
	assert_false(neighbour_claims(0x86dd, p.bytes, p.len, &ip, found));
	neighbour_announce(&ip, mac, 0, &p);
	assert_int_equal(p.len, 72);
	assert_int_equal(p.bytes[40], 136);
	assert_int_equal(p.bytes[44], 0x20);
	assert_int_equal(sum_left(p.bytes, p.len, 58), 0);
	assert_true(neighbour_claims(0x86dd, p.bytes, p.len, &ip, found));
	assert_memory_equal(found, mac, 6);
	/* Without the option it is a claim all the same; cut off it is none, nor from another
	 * network. */
	assert_true(neighbour_claims(0x86dd, p.bytes, 64, &ip, found));
	assert_false(neighbour_claims(0x86dd, p.bytes, 63, &ip, found));
	p.bytes[7] = 64;
	assert_false(neighbour_claims(0x86dd, p.bytes, p.len, &ip, found));
}

static void test_tickle(void **state)
{
	static const char *const texts[2][2] = {{"10.0.0.5:5403", "192.0.2.7:34346"},
						{"[fd00::5]:5403", "[fd00::7]:34346"}};
	uint8_t bytes[TICKLE_BYTES];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		size_t head = i == 0 ? 20 : 40;
		struct roll_ends e;
		size_t len;

		assert_int_equal(ip_of_text(texts[i][0], &e.local, &e.local_port), 0);
		assert_int_equal(ip_of_text(texts[i][1], &e.remote, &e.remote_port), 0);
		len = tickle_packet(&e, bytes);
		assert_int_equal(len, head + 20);
		assert_int_equal(bytes[0] >> 4, i == 0 ? 4 : 6);
		assert_int_equal(sum_left(bytes, len, 6), 0);
		if (i == 0)
			assert_int_equal(checksum_of(bytes, 20), 0);
		assert_memory_equal(bytes + head, "\x15\x1b\x86\x2a", 4);
		assert_int_equal(bytes[head + 13], 0x10); /* ACK and nothing else */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_arp),
		cmocka_unit_test(test_nd),
		cmocka_unit_test(test_tickle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
