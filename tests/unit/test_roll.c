/* Addresses as numbers, and the roll of sessions at service addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "cluster/roll.h"

static struct roll_ends ends(const char *local, const char *remote)
{
	struct roll_ends e = {0};

	assert_int_equal(ip_of_text(local, &e.local, &e.local_port), 0);
	assert_int_equal(ip_of_text(remote, &e.remote, &e.remote_port), 0);
	return e;
}

static void test_ip(void **state)
{
	static const struct {
		const char *text, *shown; /* NULL: no address */
	} cases[] = {
		{"10.0.0.5", "10.0.0.5"},   {"::ffff:10.0.0.5", "10.0.0.5"},
		{"FD00:0:0::5", "fd00::5"}, {"10.0.0", NULL},
		{"10.0.0.5/24", NULL},	    {"10.0.0.256", NULL},
		{"fd00::5%eth0", NULL},	    {"", NULL},
	};
	struct ip ip, other;
	uint16_t port;
	char text[IP_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(ip_parse(cases[i].text, &ip), cases[i].shown ? 0 : -EINVAL);
		if (cases[i].shown == NULL)
			continue;
		ip_format(&ip, text);
		assert_string_equal(text, cases[i].shown);
	}
	assert_int_equal(ip_of_text("[::ffff:10.0.0.5]:5403", &ip, &port), 0);
	assert_int_equal(ip_parse("10.0.0.5", &other), 0);
	assert_true(ip_equal(&ip, &other));
	assert_int_equal(port, 5403);
	assert_int_equal(ip_of_text("unix:/run/x", &ip, &port), -EINVAL);
	assert_int_equal(ip_of_text("name:1", &ip, &port), -EINVAL);
	ip_parse("fd00::1", &other);
	ip_parse("10.0.0.255", &ip);
	assert_true(ip_order(&ip, &other) < 0);
	assert_true(ip_host_is(&ip, 24, true));
	assert_false(ip_host_is(&ip, 16, true));
	ip_parse("10.0.128.0", &ip);
	assert_true(ip_host_is(&ip, 17, false));
	assert_false(ip_host_is(&ip, 16, false));
}

static void test_pack(void **state)
{
	static const uint8_t wire[12] = {10, 0, 0, 5, 0x15, 0x1b, 192, 0, 2, 7, 0x86, 0x2a};
	struct roll_ends v4 = ends("10.0.0.5:5403", "192.0.2.7:34346");
	struct roll_ends v6 = ends("[fd00::5]:5403", "[fd00::7]:34346");
	struct roll_ends back;
	uint8_t bytes[ROLL_BYTES_MAX];

	(void)state;
	assert_int_equal(roll_pack(&v4, bytes), 12);
	assert_memory_equal(bytes, wire, 12);
	assert_int_equal(roll_unpack(bytes, 12, &back), 0);
	assert_memory_equal(&back, &v4, sizeof(v4));
	assert_int_equal(roll_unpack(bytes, 11, &back), -EINVAL);
	bytes[4] = bytes[5] = 0;
	assert_int_equal(roll_unpack(bytes, 12, &back), -EINVAL);
	assert_int_equal(roll_pack(&v6, bytes), 36);
	assert_int_equal(roll_unpack(bytes, 36, &back), 0);
	assert_memory_equal(&back, &v6, sizeof(v6));
	/* IPv4 in the clothes of IPv6, on one side only. */
	memset(bytes, 0, 10);
	bytes[10] = bytes[11] = 0xff;
	assert_int_equal(roll_unpack(bytes, 36, &back), -EINVAL);
}

static void count(void *arg, const struct roll_ends *e)
{
	(void)e;
	++*(unsigned *)arg;
}

static unsigned counted(struct roll *r, uint64_t node)
{
	unsigned n = 0;

	roll_each(r, node, count, &n);
	return n;
}

static void test_heir(void **state)
{
	struct roll_ends a = ends("10.0.0.5:5403", "192.0.2.7:1001");
	struct roll_ends b = ends("10.0.0.5:5403", "192.0.2.7:1002");
	struct roll_ends c = ends("10.0.0.6:5403", "192.0.2.7:1003");
	struct roll_ends d = ends("[fd00::5]:5403", "[fd00::7]:1004");
	struct roll_ends taken[8];
	struct roll r = {0};

	(void)state;
	roll_add(&r, 1, &a);
	roll_add(&r, 1, &a);
	roll_add(&r, 1, &b);
	roll_add(&r, 1, &c);
	roll_add(&r, 1, &d);
	roll_add(&r, 2, &a); /* the heir's own */
	assert_int_equal(counted(&r, 1), 4);
	roll_remove(&r, 1, &b);
	roll_remove(&r, 1, &b);
	assert_int_equal(counted(&r, 1), 3);
	roll_add(&r, 1, &b);
	/* Board 2 takes 10.0.0.5: those of others at it, once. */
	assert_int_equal(roll_take(&r, &a.local, 2, taken, 8), 2);
	assert_int_equal(roll_take(&r, &a.local, 2, taken, 8), 0);
	assert_int_equal(counted(&r, 1), 2);
	assert_int_equal(counted(&r, 2), 1);
	assert_int_equal(roll_take(&r, &d.local, 2, taken, 8), 1);
	assert_memory_equal(&taken[0], &d, sizeof(d));
	roll_forget(&r, 1);
	assert_int_equal(counted(&r, 1), 0);
	assert_int_equal(counted(&r, 2), 1);
	roll_free(&r);
}

static void test_bound(void **state)
{
	struct roll_ends e = ends("10.0.0.5:5403", "192.0.2.7:1001");
	struct roll r = {0};

	(void)state;
	for (unsigned i = 0; i < ROLL_MAX + 10; i++) {
		e.remote.bytes[1] = (uint8_t)(i >> 8);
		e.remote.bytes[2] = (uint8_t)i;
		e.remote.bytes[3] = (uint8_t)(i >> 16);
		roll_add(&r, 1, &e);
	}
	assert_int_equal(r.entries.count, ROLL_MAX);
	assert_int_equal(r.left_out, 10);
	roll_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ip),
		cmocka_unit_test(test_pack),
		cmocka_unit_test(test_heir),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
