/* ip.h: IPv4 and IPv6 addresses as numbers. Pure.
 *
 * An IPv4 address inside IPv6 (::ffff:10.0.0.1) is the IPv4 address. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* All zero: none. What is behind `len` is zero, so that equal addresses have equal bytes. */
struct ip {
	uint8_t len; /* bytes: 4 or 16; 0: none */
	uint8_t bytes[16]; /* as on the wire */
};

enum { IP_TEXT = INET6_ADDRSTRLEN };

/* 0, or -EINVAL: neither "10.0.0.1" nor "fd00::1". */
int ip_parse(const char *text, struct ip *ret);
/* The usual short form; "" of none. */
void ip_format(const struct ip *ip, char text[IP_TEXT]);
/* Of `len` 4 or 16 bytes; none for another length. */
struct ip ip_of_bytes(const uint8_t *bytes, size_t len);
/* 0, or -EINVAL: of neither family. */
int ip_of_socket(const struct sockaddr *socket, struct ip *ret, uint16_t *ret_port);
/* "10.0.0.1:5403", "[fd00::1]:5403". The same. */
int ip_of_text(const char *text, struct ip *ret, uint16_t *ret_port);
/* IPv4 before IPv6, then by number: below, equal to or above 0. */
int ip_order(const struct ip *one, const struct ip *two);
bool ip_equal(const struct ip *one, const struct ip *two);
/* What is counted as one client: an IPv4 address, or the /64 of an IPv6 address, since one host has
 * a whole one (RFC 4291, 2.5.4). */
struct ip ip_origin(const struct ip *ip);
/* True if all bits behind the prefix are `ones` or all are zero. Prefix 1 .. 8 * len. */
bool ip_host_is(const struct ip *ip, unsigned prefix, bool ones);
