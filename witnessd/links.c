#include "witnessd/links.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "lib/mem.h"

enum { DUMP_BYTES = 32 << 10, MESSAGE_BYTES = 512 };

struct links {
	struct mnl_socket *socket;
	unsigned seq;
};

int links_open(struct links **ret)
{
	const struct timeval patience = {.tv_sec = LINKS_ANSWER_MS / 1000,
					 .tv_usec = LINKS_ANSWER_MS % 1000 * 1000};
	struct links *l;
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	int rv;

	if (socket == NULL)
		return -errno;
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVTIMEO, &patience,
		       sizeof(patience)) < 0) {
		rv = -errno;
		mnl_socket_close(socket);
		return rv;
	}
	l = mem_zalloc(sizeof(*l));
	l->socket = socket;
	*ret = l;
	return 0;
}

void links_close(struct links *l)
{
	if (l == NULL)
		return;
	mnl_socket_close(l->socket);
	free(l);
}

/* Sends and hears the answers to the end. */
static int links_ask(struct links *l, struct nlmsghdr *head, mnl_cb_t each, void *arg)
{
	char *answer = mem_alloc(DUMP_BYTES);
	unsigned port = mnl_socket_get_portid(l->socket);
	int more = MNL_CB_OK;
	int rv = 0;

	head->nlmsg_seq = ++l->seq;
	if (mnl_socket_sendto(l->socket, head, head->nlmsg_len) < 0)
		rv = -errno;
	while (rv == 0 && more > MNL_CB_STOP) {
		ssize_t got = mnl_socket_recvfrom(l->socket, answer, DUMP_BYTES);

		if (got < 0 && errno == EINTR)
			continue;
		if (got >= 0)
			more = mnl_cb_run(answer, (size_t)got, l->seq, port, each, arg);
		/* An answer to a question before that was given up. */
		if (got >= 0 && more < 0 && (errno == ESRCH || errno == EPROTO))
			more = MNL_CB_OK;
		else if (got < 0 || more < 0)
			rv = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	free(answer);
	return rv;
}

/* --- interfaces --- */

struct link_list {
	struct link_info *items;
	unsigned count;
};

static int link_visit(const struct nlmsghdr *head, void *arg)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(head);
	struct link_list *list = arg;
	struct link_info *link;
	struct nlattr *attr;

	if (list->count == LINKS_MAX || (info->ifi_flags & IFF_LOOPBACK) != 0)
		return MNL_CB_OK;
	link = &list->items[list->count];
	*link = (struct link_info){
		.index = info->ifi_index,
		.up = (info->ifi_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING),
	};
	mnl_attr_for_each(attr, head, sizeof(*info))
	{
		unsigned type = mnl_attr_get_type(attr);
		size_t len = mnl_attr_get_payload_len(attr);

		if (type == IFLA_IFNAME && len <= sizeof(link->name))
			memcpy(link->name, mnl_attr_get_payload(attr), len);
		if (type == IFLA_ADDRESS && len == sizeof(link->mac) &&
		    info->ifi_type == ARPHRD_ETHER) {
			memcpy(link->mac, mnl_attr_get_payload(attr), len);
			link->ethernet = true;
		}
	}
	link->name[LIMIT_INTERFACE] = '\0';
	list->count += link->name[0] != '\0';
	return MNL_CB_OK;
}

int links_list(struct links *l, struct link_info ret[LINKS_MAX], unsigned *ret_count)
{
	char bytes[MESSAGE_BYTES];
	struct nlmsghdr *head = mnl_nlmsg_put_header(bytes);
	struct ifinfomsg *info;
	struct link_list list = {.items = ret};
	int rv;

	head->nlmsg_type = RTM_GETLINK;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	info = mnl_nlmsg_put_extra_header(head, sizeof(*info));
	info->ifi_family = AF_UNSPEC;
	rv = links_ask(l, head, link_visit, &list);
	if (rv == 0)
		*ret_count = list.count;
	return rv;
}

/* --- addresses --- */

struct address_walk {
	void (*visit)(void *arg, const struct link_address *address);
	void *arg;
};

static int address_visit(const struct nlmsghdr *head, void *arg)
{
	const struct ifaddrmsg *info = mnl_nlmsg_get_payload(head);
	const struct address_walk *walk = arg;
	struct link_address address = {.index = (int)info->ifa_index,
				       .prefix = info->ifa_prefixlen};
	struct nlattr *attr;
	bool local = false;

	mnl_attr_for_each(attr, head, sizeof(*info))
	{
		unsigned type = mnl_attr_get_type(attr);
		size_t len = mnl_attr_get_payload_len(attr);

		/* With a peer at the other end IFA_ADDRESS is that one's. */
		if (type == IFA_LOCAL || (type == IFA_ADDRESS && !local))
			address.ip = ip_of_bytes(mnl_attr_get_payload(attr), len);
		local |= type == IFA_LOCAL;
		if (type == IFA_PROTO && len == 1)
			address.ours = mnl_attr_get_u8(attr) == LINKS_PROTO;
	}
	if (address.ip.len != 0)
		walk->visit(walk->arg, &address);
	return MNL_CB_OK;
}

int links_addresses(struct links *l, void (*visit)(void *arg, const struct link_address *address),
		    void *arg)
{
	char bytes[MESSAGE_BYTES];
	struct nlmsghdr *head = mnl_nlmsg_put_header(bytes);
	struct address_walk walk = {visit, arg};
	struct ifaddrmsg *info;

	head->nlmsg_type = RTM_GETADDR;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	info = mnl_nlmsg_put_extra_header(head, sizeof(*info));
	info->ifa_family = AF_UNSPEC;
	return links_ask(l, head, address_visit, &walk);
}

static struct nlmsghdr *address_message(char *bytes, unsigned type, unsigned flags, int index,
					const struct ip *ip, unsigned prefix)
{
	struct nlmsghdr *head = mnl_nlmsg_put_header(bytes);
	struct ifaddrmsg *info;

	head->nlmsg_type = (uint16_t)type;
	head->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	info = mnl_nlmsg_put_extra_header(head, sizeof(*info));
	info->ifa_family = ip->len == 4 ? AF_INET : AF_INET6;
	info->ifa_prefixlen = (uint8_t)prefix;
	info->ifa_index = (unsigned)index;
	mnl_attr_put(head, IFA_LOCAL, ip->len, ip->bytes);
	mnl_attr_put(head, IFA_ADDRESS, ip->len, ip->bytes);
	return head;
}

int links_address_add(struct links *l, int index, const struct ip *ip, unsigned prefix,
		      unsigned life_s)
{
	char bytes[MESSAGE_BYTES];
	struct nlmsghdr *head = address_message(bytes, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
						index, ip, prefix);
	/* An IPv6 address past its preferred life is none that this board calls others from. */
	struct ifa_cacheinfo life = {.ifa_valid = life_s,
				     .ifa_prefered = ip->len == 4 ? life_s : 0};

	/* Whether somebody else has it has been asked already, and faster. */
	if (ip->len == 16)
		mnl_attr_put_u32(head, IFA_FLAGS, IFA_F_NODAD);
	mnl_attr_put(head, IFA_CACHEINFO, sizeof(life), &life);
	mnl_attr_put_u8(head, IFA_PROTO, LINKS_PROTO);
	return links_ask(l, head, NULL, NULL);
}

int links_address_remove(struct links *l, int index, const struct ip *ip, unsigned prefix)
{
	char bytes[MESSAGE_BYTES];

	return links_ask(l, address_message(bytes, RTM_DELADDR, 0, index, ip, prefix), NULL, NULL);
}
