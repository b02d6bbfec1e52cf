/* Questions to the kernel about interfaces and addresses: an answer that does not come is waited
 * for no longer than said, and no later question takes it for its own. libmnl's two ends are here;
 * the socket between them is the kernel's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "witnessd/links.h"

static bool lost; /* questions do not reach the kernel */
static bool late; /* an answer to the question before comes first */
static unsigned waits;

ssize_t mnl_socket_sendto(const struct mnl_socket *socket, const void *bytes, size_t len)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	if (lost)
		return (ssize_t)len;
	return sendto(mnl_socket_get_fd(socket), bytes, len, 0, (const struct sockaddr *)&kernel,
		      sizeof(kernel));
}

static ssize_t answer_late(const struct mnl_socket *socket, void *bytes)
{
	struct nlmsghdr *head = mnl_nlmsg_put_header(bytes);
	struct nlmsgerr *no = mnl_nlmsg_put_extra_header(head, sizeof(*no));

	late = false;
	head->nlmsg_type = NLMSG_ERROR;
	head->nlmsg_seq = 1;
	head->nlmsg_pid = mnl_socket_get_portid(socket);
	no->error = -EPERM;
	return (ssize_t)head->nlmsg_len;
}

/* As libmnl's; where nothing would come it looks at how long would be waited, and does not wait. */
ssize_t mnl_socket_recvfrom(const struct mnl_socket *socket, void *bytes, size_t size)
{
	int fd = mnl_socket_get_fd(socket);
	struct timeval patience = {0};
	socklen_t len = sizeof(patience);
	ssize_t got;

	if (late)
		return answer_late(socket, bytes);
	got = recv(fd, bytes, size, lost ? MSG_DONTWAIT : 0);
	if (got >= 0 || errno != EAGAIN)
		return got;
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, &len), 0);
	assert_in_range(patience.tv_sec * 1000 + patience.tv_usec / 1000, LINKS_ANSWER_MS,
			LINKS_ANSWER_MS + 100);
	waits++;
	errno = EAGAIN;
	return -1;
}

static void address_seen(void *arg, const struct link_address *address)
{
	bool *loopback = arg;

	*loopback |= address->index == 1;
}

static void test_lost_answer(void **state)
{
	const struct ip ip = {.len = 4, .bytes = {10, 0, 0, 5}};
	struct link_info seen[LINKS_MAX];
	struct links *l;
	unsigned count;
	bool loopback = false;

	(void)state;
	assert_int_equal(links_open(&l), 0);
	lost = true;
	waits = 0;
	assert_int_equal(links_list(l, seen, &count), -ETIMEDOUT);
	assert_int_equal(links_addresses(l, address_seen, &loopback), -ETIMEDOUT);
	assert_int_equal(links_address_add(l, 1, &ip, 32, 3), -ETIMEDOUT);
	assert_int_equal(links_address_remove(l, 1, &ip, 32), -ETIMEDOUT);
	assert_int_equal(waits, 4);
	assert_false(loopback);
	/* The answer to the first one comes when something else is asked. */
	lost = false;
	late = true;
	assert_int_equal(links_list(l, seen, &count), 0);
	assert_int_equal(links_addresses(l, address_seen, &loopback), 0);
	links_close(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lost_answer)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
