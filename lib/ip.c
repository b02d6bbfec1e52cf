#include "lib/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "lib/address.h"

struct ip ip_of_bytes(const uint8_t *bytes, size_t len)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct ip ip = {0};

	if (len == 16 && memcmp(bytes, mapped, sizeof(mapped)) == 0) {
		bytes += sizeof(mapped);
		len = 4;
	}
	if (len != 4 && len != 16)
		return ip;
	ip.len = (uint8_t)len;
	memcpy(ip.bytes, bytes, len);
	return ip;
}

int ip_parse(const char *text, struct ip *ret)
{
	uint8_t bytes[16];

	if (inet_pton(AF_INET, text, bytes) == 1)
		*ret = ip_of_bytes(bytes, 4);
	else if (inet_pton(AF_INET6, text, bytes) == 1)
		*ret = ip_of_bytes(bytes, 16);
	else
		return -EINVAL;
	return 0;
}

void ip_format(const struct ip *ip, char text[IP_TEXT])
{
	text[0] = '\0';
	if (ip->len != 0)
		inet_ntop(ip->len == 4 ? AF_INET : AF_INET6, ip->bytes, text, IP_TEXT);
}

int ip_of_socket(const struct sockaddr *socket, struct ip *ret, uint16_t *ret_port)
{
	const void *at = socket;

	if (socket->sa_family == AF_INET) {
		const struct sockaddr_in *in = at;

		*ret = ip_of_bytes((const uint8_t *)&in->sin_addr, 4);
		*ret_port = ntohs(in->sin_port);
		return 0;
	}
	if (socket->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = at;

		*ret = ip_of_bytes((const uint8_t *)&in6->sin6_addr, 16);
		*ret_port = ntohs(in6->sin6_port);
		return 0;
	}
	return -EINVAL;
}

int ip_of_text(const char *text, struct ip *ret, uint16_t *ret_port)
{
	struct address address;

	if (address_parse(text, &address) != 0 || address.kind != ADDRESS_SOCKET)
		return -EINVAL;
	return ip_of_socket(&address.socket.any, ret, ret_port);
}

int ip_order(const struct ip *one, const struct ip *two)
{
	if (one->len != two->len)
		return one->len < two->len ? -1 : 1;
	return memcmp(one->bytes, two->bytes, sizeof(one->bytes));
}

bool ip_equal(const struct ip *one, const struct ip *two)
{
	return ip_order(one, two) == 0;
}

struct ip ip_origin(const struct ip *ip)
{
	struct ip origin = *ip;

	if (ip->len == 16)
		memset(origin.bytes + 8, 0, 8);
	return origin;
}

bool ip_host_is(const struct ip *ip, unsigned prefix, bool ones)
{
	for (unsigned bit = prefix; bit < 8u * ip->len; bit++)
		if (((ip->bytes[bit / 8] >> (7 - bit % 8)) & 1) != ones)
			return false;
	return true;
}
