/* net_words.c: words about the network: an address, round trips, numbered packets, and a stream. */
#include "guest.h"
#include "stream.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKET_MAX = 1472, WAIT_MS = 1000, QUEUE_BYTES = 4 << 20 };

static int address_set(int socket_, const char *name, unsigned long request, uint32_t address)
{
	struct ifreq card = {0};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
	snprintf(card.ifr_name, sizeof card.ifr_name, "%s", name);
	memcpy(&card.ifr_addr, &in, sizeof in);
	return ioctl(socket_, request, &card) < 0 ? -errno : 0;
}

static int card_up(int socket_, const char *name)
{
	struct ifreq card = {0};
	snprintf(card.ifr_name, sizeof card.ifr_name, "%s", name);
	if (ioctl(socket_, SIOCGIFFLAGS, &card) < 0)
		return -errno;
	card.ifr_flags |= IFF_UP;
	return ioctl(socket_, SIOCSIFFLAGS, &card) < 0 ? -errno : 0;
}

/* net=eth0,10.0.0.2/24 */
static int net_run(struct call *call)
{
	const char *name = call_text(call, 0, "eth0");
	char address[32];
	snprintf(address, sizeof address, "%s", call_text(call, 1, "10.0.0.2/24"));
	char *slash = strchr(address, '/');
	int length = slash ? atoi(slash + 1) : 24;
	if (slash)
		*slash = '\0';
	uint32_t mask = length ? htonl(UINT32_MAX << (32 - length)) : 0;
	int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
	int error = address_set(socket_, name, SIOCSIFADDR, inet_addr(address));
	if (error == 0)
		error = address_set(socket_, name, SIOCSIFNETMASK, mask);
	if (error == 0)
		error = card_up(socket_, name);
	close(socket_);
	return error ? call_failed(call, -error, "address %s of %s", address, name) : 0;
}

static int socket_bound(struct call *call, int type, int port_index)
{
	uint16_t port = (uint16_t)call_number(call, port_index, 7000);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	int socket_ = socket(AF_INET, type, 0), on = 1, size = QUEUE_BYTES;
	setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (socket_ < 0 || bind(socket_, (struct sockaddr *)&here, sizeof here) < 0 ||
	    (type == SOCK_STREAM && listen(socket_, 8) < 0)) {
		int error = errno;
		close(socket_);
		return call_failed(call, error, "port %u", port);
	}
	return socket_;
}

static int socket_connected(struct call *call, int type)
{
	const char *host = call_text(call, 0, "10.0.0.1");
	uint16_t port = (uint16_t)call_number(call, 1, 7000);
	struct sockaddr_in there = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(host)};
	int socket_ = socket(AF_INET, type, 0);
	if (socket_ < 0 || connect(socket_, (struct sockaddr *)&there, sizeof there) < 0) {
		int error = errno;
		close(socket_);
		return call_failed(call, error, "connection to %s port %u", host, port);
	}
	return socket_;
}

/* True when something came within WAIT_MS. */
static bool awaited(int socket_)
{
	struct pollfd wait = {.fd = socket_, .events = POLLIN};
	return poll(&wait, 1, WAIT_MS) == 1;
}

static int udp_echo_run(struct call *call)
{
	char packet[PACKET_MAX];
	int socket_ = socket_bound(call, SOCK_DGRAM, 0);
	if (socket_ < 0)
		return socket_;
	for (;;) {
		struct sockaddr_in from;
		socklen_t from_size = sizeof from;
		ssize_t length = recvfrom(socket_, packet, sizeof packet, 0,
					  (struct sockaddr *)&from, &from_size);
		if (length >= 0)
			sendto(socket_, packet, (size_t)length, 0, (struct sockaddr *)&from,
			       from_size);
	}
}

/* The answer to number n; answers to earlier ones, thought lost, are passed over. */
static bool echo_awaited(int socket_, uint64_t n)
{
	uint64_t packet[PACKET_MAX / 8];
	while (awaited(socket_))
		if (recv(socket_, packet, sizeof packet, 0) >= 8 && packet[0] == n)
			return true;
	return false;
}

static int udp_ping_run(struct call *call)
{
	uint64_t count = call_number(call, 2, 100), size = call_number(call, 3, 64), lost = 0;
	uint64_t packet[PACKET_MAX / 8] = {0}, worst = 0;
	if (size < 8 || size > PACKET_MAX)
		return call_failed(call, EINVAL, "size 8 to %d", PACKET_MAX);
	int socket_ = socket_connected(call, SOCK_DGRAM);
	if (socket_ < 0)
		return socket_;
	uint64_t began = now_ns();
	for (uint64_t n = 1; n <= count; n++) {
		uint64_t sent = now_ns();
		packet[0] = n;
		if (send(socket_, packet, size, 0) < 0 || !echo_awaited(socket_, n))
			lost++;
		uint64_t took = now_ns() - sent;
		worst = took > worst ? took : worst;
	}
	uint64_t ns = now_ns() - began;
	close(socket_);
	call_result(call, "sent=%llu lost=%llu ns=%llu worst_ns=%llu per_1e9=%llu",
		    (unsigned long long)count, (unsigned long long)lost, (unsigned long long)ns,
		    (unsigned long long)worst,
		    (unsigned long long)(count * 1000000000 / (ns ? ns : 1)));
	return lost == count ? call_failed(call, ETIMEDOUT, "every round trip") : 0;
}

/* --- numbered packets -------------------------------------------------------------------------
 * The sender numbers packets 1, 2, ...; the receiver answers every ACK_EVERY-th, and the last, with
 * the highest number seen; the sender has at most `window` unanswered. So nothing need be lost for
 * want of room, and whatever is lost, doubled or out of order is the fault of what lies between. */

enum { ACK_EVERY = 32 };

struct receipt {
	uint64_t received, lost, disordered, broken, highest;
};

static void receipt_take(struct receipt *receipt, const uint64_t *packet, ssize_t length)
{
	uint64_t n = packet[0], state = n;
	if (length < 16 || packet[1] != mixed_next(&state)) {
		receipt->broken++;
		return;
	}
	receipt->received++;
	if (n <= receipt->highest) {
		receipt->disordered++;
		return;
	}
	receipt->lost += n - receipt->highest - 1;
	receipt->highest = n;
}

static int packets_receive_run(struct call *call)
{
	uint64_t count = call_number(call, 1, 1000), packet[PACKET_MAX / 8];
	int limit_ms = (int)call_number(call, 2, 60000);
	struct receipt receipt = {0};
	int socket_ = socket_bound(call, SOCK_DGRAM, 0);
	if (socket_ < 0)
		return socket_;
	say("PACKETS awaited");
	while (receipt.highest < count) {
		struct sockaddr_in from;
		socklen_t from_size = sizeof from;
		struct pollfd wait = {.fd = socket_, .events = POLLIN};
		if (poll(&wait, 1, limit_ms) != 1)
			break;
		ssize_t length = recvfrom(socket_, packet, sizeof packet, 0,
					  (struct sockaddr *)&from, &from_size);
		receipt_take(&receipt, packet, length);
		if (receipt.received % ACK_EVERY == 0 || receipt.highest == count)
			sendto(socket_, &receipt.highest, sizeof receipt.highest, 0,
			       (struct sockaddr *)&from, from_size);
	}
	close(socket_);
	receipt.lost += count - receipt.highest;
	call_result(call, "received=%llu lost=%llu disordered=%llu broken=%llu",
		    (unsigned long long)receipt.received, (unsigned long long)receipt.lost,
		    (unsigned long long)receipt.disordered, (unsigned long long)receipt.broken);
	if (receipt.lost || receipt.disordered || receipt.broken)
		return call_failed(call, EIO, "%s", call->result);
	return 0;
}

/* Waits until fewer than `window` are unanswered; false when no answer came in time: an answer, or
 * what it answers, was lost. */
static bool window_opened(int socket_, uint64_t sent, uint64_t window, uint64_t *answered)
{
	while (sent - *answered >= window) {
		uint64_t highest;
		if (!awaited(socket_))
			return false;
		if (recv(socket_, &highest, sizeof highest, 0) == sizeof highest &&
		    highest > *answered && highest <= sent)
			*answered = highest;
	}
	return true;
}

static int packets_send_run(struct call *call)
{
	uint64_t count = call_number(call, 2, 1000), size = call_number(call, 3, 64);
	uint64_t window = call_number(call, 4, 256), answered = 0, stalls = 0;
	uint64_t packet[PACKET_MAX / 8] = {0};
	if (size < 16 || size > PACKET_MAX || window < ACK_EVERY)
		return call_failed(call, EINVAL, "size 16 to %d, window %d or more", PACKET_MAX,
				   ACK_EVERY);
	int socket_ = socket_connected(call, SOCK_DGRAM);
	if (socket_ < 0)
		return socket_;
	uint64_t began = now_ns();
	for (uint64_t n = 1; n <= count; n++) {
		uint64_t state = n;
		packet[0] = n;
		packet[1] = mixed_next(&state);
		if (send(socket_, packet, size, 0) < 0) {
			int error = errno;
			close(socket_);
			return call_failed(call, error, "packet %llu", (unsigned long long)n);
		}
		if (!window_opened(socket_, n, n == count ? 1 : window, &answered)) {
			stalls++;
			answered = n;
		}
	}
	uint64_t ns = now_ns() - began;
	close(socket_);
	call_result(call, "sent=%llu stalls=%llu ns=%llu", (unsigned long long)count,
		    (unsigned long long)stalls, (unsigned long long)ns);
	return stalls ? call_failed(call, ETIMEDOUT, "%s", call->result) : 0;
}

static int tcp_send_run(struct call *call)
{
	uint64_t mib = call_number(call, 2, 16);
	int stream = socket_connected(call, SOCK_STREAM);
	if (stream < 0)
		return stream;
	uint64_t began = now_ns();
	int error = stream_send(stream, mib << 20);
	uint64_t ns = now_ns() - began;
	close(stream);
	call_result(call, "mib=%llu ns=%llu mb_per_1e9=%llu", (unsigned long long)mib,
		    (unsigned long long)ns,
		    (unsigned long long)((mib << 20) * 1000 / (ns ? ns : 1)));
	return error ? call_failed(call, -error, "transfer") : 0;
}

static int tcp_receive_run(struct call *call)
{
	int listener = socket_bound(call, SOCK_STREAM, 0);
	if (listener < 0)
		return listener;
	say("STREAM awaited");
	int stream = accept(listener, NULL, NULL);
	close(listener);
	if (stream < 0)
		return call_failed(call, errno, "accept");
	uint64_t bytes = 0, began = now_ns();
	int error = stream_receive(stream, &bytes);
	uint64_t ns = now_ns() - began;
	close(stream);
	call_result(call, "bytes=%llu ns=%llu mb_per_1e9=%llu", (unsigned long long)bytes,
		    (unsigned long long)ns, (unsigned long long)(bytes * 1000 / (ns ? ns : 1)));
	return error ? call_failed(call, -error, "transfer") : 0;
}

static int tcp_echo_run(struct call *call)
{
	int listener = socket_bound(call, SOCK_STREAM, 0);
	if (listener < 0)
		return listener;
	int error = stream_serve(listener);
	close(listener);
	return call_failed(call, -error, "accept");
}

/* One request: whatever it asks for, how often anything was, and for how long this guest has run.
 */
static void http_answer(int stream, unsigned long long count)
{
	char request[2048], answer[256];
	const struct timeval patience = {.tv_sec = 5};
	size_t length = 0;
	ssize_t got = 1;

	setsockopt(stream, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	while (got > 0 && length < sizeof request - 1) {
		got = read(stream, request + length, sizeof request - 1 - length);
		length += got > 0 ? (size_t)got : 0;
		request[length] = '\0';
		if (strstr(request, "\r\n\r\n"))
			break;
	}
	int bytes = snprintf(answer, sizeof answer,
			     "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
			     "answer %llu, running for %llu ms\n",
			     count, (unsigned long long)(now_ns() / 1000000));
	(void)!write(stream, answer, (size_t)bytes);
}

static int http_run(struct call *call)
{
	int listener = socket_bound(call, SOCK_STREAM, 0), stream;
	if (listener < 0)
		return listener;
	for (unsigned long long count = 1; (stream = accept(listener, NULL, NULL)) >= 0; count++) {
		http_answer(stream, count);
		close(stream);
	}
	int error = errno;
	close(listener);
	return call_failed(call, error, "accept");
}

static int tcp_exercise_run(struct call *call)
{
	uint64_t kib = call_number(call, 2, 64);
	int stream = socket_connected(call, SOCK_STREAM);
	if (stream < 0)
		return stream;
	int error = stream_exercise(stream, kib * 1024);
	close(stream);
	call_result(call, "kib=%llu", (unsigned long long)kib);
	return error ? call_failed(call, -error, "what was echoed") : 0;
}

const struct word net_words[] = {
	{"net", net_run, "CARD,ADDRESS/LENGTH"},
	{"udp.echo", udp_echo_run, "PORT"},
	{"udp.ping", udp_ping_run, "ADDRESS,PORT,COUNT,SIZE"},
	{"packets.receive", packets_receive_run, "PORT,COUNT,LIMIT_MS"},
	{"packets.send", packets_send_run, "ADDRESS,PORT,COUNT,SIZE,WINDOW"},
	{"tcp.receive", tcp_receive_run, "PORT"},
	{"tcp.send", tcp_send_run, "ADDRESS,PORT,MIB"},
	{"tcp.echo", tcp_echo_run, "PORT"},
	{"tcp.exercise", tcp_exercise_run, "ADDRESS,PORT,KIB"},
	{"http", http_run, "PORT"},
	{NULL, NULL, NULL},
};
