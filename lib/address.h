/* address.h: addresses as people write them: "10.0.0.1:7443", "[::1]:7443", "name:7443",
 * "*:7443" (every address of this board), "unix:/run/tiebreak/witnessd.sock". Pure. */
#pragma once
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum address_kind {
	ADDRESS_SOCKET, /* ready for bind and connect: IPv4, IPv6, Unix */
	ADDRESS_ANY, /* "*": IPv6 and IPv4 at once; socket holds [::] */
	ADDRESS_NAME, /* to be resolved: host and port */
};

struct address {
	enum address_kind kind;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} socket;
	socklen_t socket_len;
	uint16_t port; /* not for Unix sockets */
	char host[256]; /* kind NAME only */
};

enum { ADDRESS_TEXT = 64 };

/* 0; -EINVAL: not of one of the forms above; -ENAMETOOLONG: a path that no socket can have. */
int address_parse(const char *text, struct address *ret);
/* "10.0.0.1:34346", "[::1]:5", "unix"; IPv4 inside IPv6 is written as IPv4. */
void address_format(const struct sockaddr *socket, char text[ADDRESS_TEXT]);
