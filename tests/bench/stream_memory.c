/* What an idle TLS session costs, and what its handshake does to others on the same loop: a server
 * in this process, clients with certificates in a child. Prints numbers, asserts none.
 * Usage: stream_memory [sessions] [at once] [chain|-] [keep]; "at once": handshakes that clients
 * keep open (300 is the storm after a switch reboot); "chain": clients send their CA too, as NSS
 * does; "keep": the server keeps the clients' certificates. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/test_certs.h"
#include "witnessd/stream.h"

enum { DAY = 86400, TIMER_MS = 2 };

struct bench {
	uv_loop_t loop;
	struct stream_group *group;
	struct tls_context *tls;
	char address[64];
	unsigned wanted;
	unsigned at_once;
	unsigned begun;
	unsigned ready;
	unsigned closed;
	bool keep; /* the clients' certificates */
	uv_timer_t timer; /* something that should not wait, like a heartbeat */
	uint64_t timer_ns;
	uint64_t worst_gap_ns;
};

static size_t rss_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long total, resident = 0;

	if (!file || fscanf(file, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	if (file)
		fclose(file);
	return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void on_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	/* An answer, so that both directions have been used once. */
	stream_write(s, bytes, len);
}

static void on_ready(struct stream *s)
{
	struct bench *b = stream_arg(s);

	b->ready++;
	if (!b->keep)
		tls_session_forget_peer(stream_tls(s)); /* as the site door does */
}

static void on_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct bench *b = stream_arg(s);

	b->closed++;
	if (b->closed == 1 && end != STREAM_END_PEER)
		fprintf(stderr, "a session ended: %s\n", detail);
}

static const struct stream_events server_events = {
	.ready = on_ready, .data = on_data, .closed = on_closed};

static void client_next(struct bench *b);

static void client_ready(struct stream *s)
{
	stream_write(s, "hello", 5);
}

static void client_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	client_next(stream_arg(s));
}

static const struct stream_events client_events = {
	.ready = client_ready, .data = client_data, .closed = on_closed};

static void client_next(struct bench *b)
{
	if (b->begun == b->wanted)
		return;
	b->begun++;
	stream_connect(b->group, b->address, b->tls, 60000, &client_events, b);
}

static void client_run(struct bench *b)
{
	uv_loop_init(&b->loop);
	b->group = stream_group_new(&b->loop, 2000);
	for (unsigned i = 0; i < b->at_once; i++)
		client_next(b);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	_exit(0);
}

static struct tls_context *context(const struct test_cert *own, const struct test_cert *ca,
				   bool server, bool chain)
{
	char *certificate = mem_printf("%s%s", own->pem, chain ? ca->pem : "");
	const struct tls_options o = {.certificate = certificate,
				      .key = own->key,
				      .ca = ca->pem,
				      .server = server,
				      .ask_client_certificate = server};
	struct tls_context *c;
	const char *message;

	if (tls_context_new(&o, &c, &message) < 0) {
		fprintf(stderr, "%s\n", message);
		exit(1);
	}
	free(certificate);
	return c;
}

static void on_timer(uv_timer_t *timer)
{
	struct bench *b = timer->data;
	uint64_t now = uv_hrtime();

	if (b->timer_ns != 0 && now - b->timer_ns > b->worst_gap_ns)
		b->worst_gap_ns = now - b->timer_ns;
	b->timer_ns = now;
}

static void measure(struct bench *b, pid_t child)
{
	size_t rss = rss_kib();
	struct mallinfo2 heap = mallinfo2();
	uint64_t start = uv_hrtime();
	struct rusage before, after;

	uv_timer_init(&b->loop, &b->timer);
	b->timer.data = b;
	uv_timer_start(&b->timer, on_timer, TIMER_MS, TIMER_MS);
	getrusage(RUSAGE_SELF, &before);
	while (b->ready < b->wanted && b->closed == 0)
		uv_run(&b->loop, UV_RUN_ONCE);
	for (int i = 0; i < 100; i++)
		uv_run(&b->loop, UV_RUN_NOWAIT);
	getrusage(RUSAGE_SELF, &after);
	double cpu_ms = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1e3 +
			(double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e3 +
			(double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1e3 +
			(double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e3;
	printf("sessions %u, %.1f s\n", b->ready, (double)(uv_hrtime() - start) / 1e9);
	printf("RSS per session     %6.1f KiB\n", (double)(rss_kib() - rss) / b->ready);
	printf("heap per session    %6.1f KiB\n",
	       (double)(mallinfo2().uordblks + mallinfo2().hblkhd - heap.uordblks - heap.hblkhd) /
		       1024 / b->ready);
	printf("server CPU per session %.2f ms\n", cpu_ms / b->ready);
	printf("worst gap of a %d ms timer %.1f ms\n", TIMER_MS, (double)b->worst_gap_ns / 1e6);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	struct bench b = {.wanted = argc > 1 ? (unsigned)atoi(argv[1]) : 2000,
			  .at_once = argc > 2 ? (unsigned)atoi(argv[2]) : 64};
	bool chain = argc > 3 && strcmp(argv[3], "chain") == 0;
	struct test_cert ca = test_cert_new("Cluster CA", NULL, NULL, -DAY, DAY, 0);
	struct test_cert own =
		test_cert_new("site-00001", &ca, "URI:tiebreak:client/site", -DAY, DAY, 0);
	struct rlimit files;
	struct stream_listener *l;
	const char *message;

	b.keep = argc > 4 && strcmp(argv[4], "keep") == 0;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	uv_loop_init(&b.loop);
	b.group = stream_group_new(&b.loop, 2000);
	b.tls = context(&own, &ca, true, false);
	const struct stream_listen how = {
		.address = "127.0.0.1:0", .tls = b.tls, .events = &server_events, .arg = &b};
	if (stream_listen(b.group, &how, &l, &message) < 0) {
		fprintf(stderr, "%s\n", message);
		return 1;
	}
	pid_t child = fork();
	if (child == 0) {
		struct bench client = {.wanted = b.wanted,
				       .at_once = b.at_once,
				       .tls = context(&own, &ca, false, chain)};

		snprintf(client.address, sizeof(client.address), "127.0.0.1:%u",
			 stream_listener_port(l));
		client_run(&client);
	}
	measure(&b, child);
	return 0;
}
