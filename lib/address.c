#include "lib/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

static int parse_unix(const char *path, struct address *ret)
{
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(ret->socket.un.sun_path))
		return -ENAMETOOLONG;
	ret->kind = ADDRESS_SOCKET;
	ret->socket.un.sun_family = AF_UNIX;
	memcpy(ret->socket.un.sun_path, path, len + 1);
	ret->socket_len = sizeof(ret->socket.un);
	return 0;
}

static void set_in6(struct address *a, enum address_kind kind, const struct in6_addr *host)
{
	a->kind = kind;
	a->socket.in6.sin6_family = AF_INET6;
	a->socket.in6.sin6_addr = *host;
	a->socket.in6.sin6_port = htons(a->port);
	a->socket_len = sizeof(a->socket.in6);
}

static int parse_host(const char *host, size_t len, struct address *ret)
{
	struct in6_addr in6;

	if (len == 0 || len >= sizeof(ret->host))
		return -EINVAL;
	memcpy(ret->host, host, len);
	ret->host[len] = '\0';
	if (strcmp(ret->host, "*") == 0) {
		set_in6(ret, ADDRESS_ANY, &in6addr_any);
		return 0;
	}
	if (host[0] == '[') {
		if (len < 3 || host[len - 1] != ']')
			return -EINVAL;
		memmove(ret->host, host + 1, len - 2);
		ret->host[len - 2] = '\0';
		if (inet_pton(AF_INET6, ret->host, &in6) != 1)
			return -EINVAL;
		set_in6(ret, ADDRESS_SOCKET, &in6);
		return 0;
	}
	if (inet_pton(AF_INET, ret->host, &ret->socket.in.sin_addr) == 1) {
		ret->kind = ADDRESS_SOCKET;
		ret->socket.in.sin_family = AF_INET;
		ret->socket.in.sin_port = htons(ret->port);
		ret->socket_len = sizeof(ret->socket.in);
		return 0;
	}
	ret->kind = ADDRESS_NAME;
	return strchr(ret->host, ':') ? -EINVAL : 0; /* IPv6 needs its brackets */
}

int address_parse(const char *text, struct address *ret)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;

	*ret = (struct address){0};
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret);
	if (!colon || text_to_u64(colon + 1, 0, UINT16_MAX, &port) < 0)
		return -EINVAL;
	ret->port = (uint16_t)port;
	return parse_host(text, (size_t)(colon - text), ret);
}

void address_format(const struct sockaddr *socket, char text[ADDRESS_TEXT])
{
	char host[INET6_ADDRSTRLEN];

	if (socket->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)socket;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT, "%s:%u", host, ntohs(in->sin_port));
	} else if (socket->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)socket;
		int mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		if (mapped)
			inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, host, sizeof(host));
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT, mapped ? "%s:%u" : "[%s]:%u", host,
			 ntohs(in6->sin6_port));
	} else {
		snprintf(text, ADDRESS_TEXT, "unix");
	}
}
