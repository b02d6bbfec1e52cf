/* The front on real sockets: HTTPS and the Unix socket, links between boards, admissions. The core
 * is a stand-in: its functions are defined here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "cluster/store.h"
#include "lib/address.h"
#include "proto/api.pb-c.h"
#include "witnessd/config.h"
#include "witnessd/core.h"
#include "witnessd/front.h"
#include "witnessd/identity.h"
#include "witnessd/pki.h"

enum { PATIENCE_MS = 10000 };

/* --- the core --- */

struct core {
	struct core_view view;
	char model[96]; /* its file; "": none */
	pthread_mutex_t lock;
	pthread_cond_t news;
	int dialed_fd; /* INT32_MIN: no answer yet */
	int accepted_fd; /* -1: none yet */
	uint64_t accepted_node;
	char accepted_alpn[16];
	bool join_answered;
	int join_error;
	char join_message[512];
	char joined_cluster[64];
	unsigned admissions;
	char admitted_token[64];
};

const struct core_view *core_view(const struct core *c)
{
	return &c->view;
}

const char *core_model_path(const struct core *c)
{
	return c->model;
}

Tb__LocalStatus *core_local_status(struct core *c)
{
	Tb__LocalStatus *status = mem_alloc(sizeof(*status));

	(void)c;
	tb__local_status__init(status);
	status->state = mem_strdup("new");
	status->node_name = mem_strdup("test");
	return status;
}

void core_propose(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg)
{
	(void)c, (void)home, (void)commands, (void)count, (void)done, (void)arg;
	fail();
}

void core_query(struct core *c, struct mailbox *home, const Tb__PeerQuery *query,
		core_answered done, void *arg)
{
	(void)c, (void)home, (void)query, (void)done, (void)arg;
	fail();
}

void core_init_cluster(struct core *c, struct mailbox *home, const Tb__ClusterInitRequest *request,
		       core_controlled done, void *arg)
{
	(void)c, (void)home, (void)request, (void)done, (void)arg;
	fail();
}

void core_restore_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterInitRequest *request, const uint8_t *backup, size_t len,
			  core_controlled done, void *arg)
{
	(void)c, (void)home, (void)request, (void)backup, (void)len, (void)done, (void)arg;
	fail();
}

void core_recover_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterRecoverRequest *request, core_recovered done, void *arg)
{
	(void)c, (void)home, (void)request, (void)done, (void)arg;
	fail();
}

void core_join_cluster(struct core *c, struct mailbox *home, const Tb__ClusterJoinRequest *request,
		       core_controlled done, void *arg)
{
	(void)c, (void)home, (void)request, (void)done, (void)arg;
	fail();
}

void core_host_report(struct core *c, Tb__HostReport *report)
{
	(void)c;
	tb__host_report__free_unpacked(report, NULL);
}

void core_link_dialed(struct core *c, uint64_t dial_id, int fd_or_error)
{
	assert_int_equal(dial_id, 7);
	pthread_mutex_lock(&c->lock);
	c->dialed_fd = fd_or_error;
	pthread_cond_broadcast(&c->news);
	pthread_mutex_unlock(&c->lock);
}

void core_door_events(struct core *c, Tb__DoorEvent **events, size_t count)
{
	(void)c;
	for (size_t i = 0; i < count; i++)
		tb__door_event__free_unpacked(events[i], NULL);
	free(events);
}

void core_link_accepted(struct core *c, const char *alpn, uint64_t node, int fd)
{
	pthread_mutex_lock(&c->lock);
	c->accepted_fd = fd;
	c->accepted_node = node;
	snprintf(c->accepted_alpn, sizeof(c->accepted_alpn), "%s", alpn);
	pthread_cond_broadcast(&c->news);
	pthread_mutex_unlock(&c->lock);
}

void core_join_answered(struct core *c, uint64_t dial_id, int error, const char *message,
			const Tb__JoinReply *reply)
{
	assert_int_equal(dial_id, 9);
	pthread_mutex_lock(&c->lock);
	assert_false(c->join_answered);
	c->join_answered = true;
	c->join_error = error;
	snprintf(c->join_message, sizeof(c->join_message), "%s", message);
	if (reply != NULL)
		snprintf(c->joined_cluster, sizeof(c->joined_cluster), "%s", reply->cluster_id);
	pthread_cond_broadcast(&c->news);
	pthread_mutex_unlock(&c->lock);
}

struct admission {
	struct letter letter;
	core_joined done;
	void *arg;
};

static void admission_open(struct letter *letter)
{
	struct admission *a = list_entry(letter, struct admission, letter);
	Tb__JoinReply reply = TB__JOIN_REPLY__INIT;

	reply.cluster_id = (char *)(uintptr_t) "0123";
	a->done(a->arg, &reply);
	free(a);
}

void core_admit(struct core *c, struct mailbox *home, const Tb__JoinRequest *request,
		core_joined done, void *arg)
{
	struct admission *a = mem_zalloc(sizeof(*a));

	c->admissions++;
	snprintf(c->admitted_token, sizeof(c->admitted_token), "%s", request->token);
	a->letter.open = admission_open;
	a->done = done;
	a->arg = arg;
	mailbox_answer(home, &a->letter);
}

static void core_wait(struct core *c, bool (*there)(const struct core *c))
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	pthread_mutex_lock(&c->lock);
	while (!there(c))
		assert_int_equal(pthread_cond_timedwait(&c->news, &c->lock, &until), 0);
	pthread_mutex_unlock(&c->lock);
}

static bool is_dialed(const struct core *c)
{
	return c->dialed_fd != INT32_MIN;
}

static bool is_accepted(const struct core *c)
{
	return c->accepted_fd >= 0;
}

static bool is_joined(const struct core *c)
{
	return c->join_answered;
}

/* --- boards --- */

struct authority {
	char *key;
	struct pki_signed cert;
	char sha256[65];
};

struct board {
	struct core core;
	struct front *front;
	struct config config;
	char dir[64];
	char address[64];
};

static struct authority ca, other_ca;
static const int64_t day_ms = 86400000;
static int64_t signed_ahead_ms; /* the time at which certificates are made, from now */

static void authority_make(struct authority *a)
{
	assert_int_equal(pki_key_new(&a->key), 0);
	assert_int_equal(pki_ca_new("CA", a->key, clock_realtime_ms(), 3650, &a->cert), 0);
	pki_sha256(a->cert.pem, a->sha256);
}

static void authority_free(struct authority *a)
{
	free(a->key);
	pki_signed_free(&a->cert);
}

/* Signed by `by`; shows the certificate of `shown` as its CA. */
static void board_identity(struct board *b, uint64_t node, enum pki_use use,
			   const struct authority *by, const struct authority *shown)
{
	struct identity id = {.node_id = node};
	struct pki_signed cert;
	const char *why = "";
	char *request;
	char uri[64];

	assert_int_equal(pki_key_new(&id.key), 0);
	assert_int_equal(pki_request_new("board", id.key, &request), 0);
	snprintf(uri, sizeof(uri), "tiebreak:node/%llu", (unsigned long long)node);
	assert_int_equal(
		pki_sign(&(struct pki_sign){.ca_cert = by->cert.pem,
					    .ca_key = by->key,
					    .request = request,
					    .request_len = strlen(request),
					    .common_name = "board",
					    .uri = uri,
					    .use = use,
					    .now_ms = clock_realtime_ms() + signed_ahead_ms,
					    .not_after_ms = clock_realtime_ms() + 30 * day_ms},
			 &cert, &why),
		0);
	free(request);
	id.cert = cert.pem;
	id.ca_cert = mem_strdup(shown->cert.pem);
	strcpy(id.node_name, "board");
	strcpy(id.cluster_id, "00112233445566778899aabbccddeeff");
	strcpy(id.address, "127.0.0.1:1");
	assert_int_equal(identity_save(b->dir, &id, &why), 0);
	cert.pem = NULL;
	pki_signed_free(&cert);
	identity_free(&id);
}

static void board_make(struct board *b)
{
	char *message = NULL;

	*b = (struct board){.core = {.dialed_fd = INT32_MIN, .accepted_fd = -1}};
	pthread_mutex_init(&b->core.lock, NULL);
	pthread_cond_init(&b->core.news, NULL);
	strcpy(b->dir, "/tmp/tiebreak-front-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	config_init(&b->config);
	assert_int_equal(config_set(&b->config, "node.data-dir", b->dir, &message), 0);
	assert_int_equal(config_set(&b->config, "node.run-dir", b->dir, &message), 0);
	assert_int_equal(config_set(&b->config, "api.listen", "127.0.0.1:0", &message), 0);
}

static void board_start(struct board *b)
{
	const char *why = "";

	assert_int_equal(front_start(&b->config, &b->core, &b->front, &why), 0);
}

static void board_open(struct board *b)
{
	board_make(b);
	board_start(b);
}

/* Tells the front of its identity and waits for the port. */
static void board_serve(struct board *b)
{
	front_identity_changed(b->front);
	for (int i = 0; front_port(b->front) == 0 && i < PATIENCE_MS; i++)
		usleep(1000);
	assert_int_not_equal(front_port(b->front), 0);
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%u", front_port(b->front));
}

static void board_close(struct board *b)
{
	static const char *const files[] = {"node.key",	     "node.crt", "ca.crt",
					    "identity.json", "model.db", "model.db-wal",
					    "model.db-shm"};

	front_stop(b->front);
	if (b->core.accepted_fd >= 0)
		close(b->core.accepted_fd);
	if (b->core.dialed_fd >= 0)
		close(b->core.dialed_fd);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char *path = mem_printf("%s/%s", b->dir, files[i]);

		unlink(path);
		free(path);
	}
	assert_int_equal(rmdir(b->dir), 0);
	config_free(&b->config);
}

/* --- HTTP --- */

static size_t body_take(char *data, size_t size, size_t count, void *arg)
{
	buf_append(arg, data, size * count);
	return size * count;
}

static long fetch(struct board *b, bool local, const char *path, struct buf *body)
{
	CURL *curl = curl_easy_init();
	char *socket = mem_printf("%s/witnessd.sock", b->dir);
	char *url = local ? mem_printf("http://localhost%s", path)
			  : mem_printf("https://%s%s", b->address, path);
	long status = 0;

	if (local)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)PATIENCE_MS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	if (curl_easy_perform(curl) == CURLE_OK)
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(curl);
	free(socket);
	free(url);
	return status;
}

static void test_socket_before_identity(void **state)
{
	struct stat st;
	struct board b;
	struct buf body = {0};
	char *path;

	(void)state;
	board_open(&b);
	assert_int_equal(front_port(b.front), 0);
	assert_int_equal(fetch(&b, true, "/v1/local", &body), 200);
	assert_non_null(strstr(buf_string(&body), "\"state\":\"new\""));
	buf_clear(&body);
	assert_int_equal(fetch(&b, true, "/v1/nowhere", &body), 404);
	assert_non_null(strstr(buf_string(&body), "\"remedy\""));
	path = mem_printf("%s/witnessd.sock", b.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	free(path);
	buf_free(&body);
	board_close(&b);
}

static void test_https(void **state)
{
	struct board b;
	struct buf body = {0};

	(void)state;
	board_open(&b);
	board_identity(&b, 1, PKI_NODE, &ca, &ca);
	board_serve(&b);
	assert_int_equal(fetch(&b, false, "/healthz", &body), 200);
	assert_int_equal(fetch(&b, false, "/v1/local", &body), 401);
	assert_int_equal(fetch(&b, false, "/openapi.json", &body), 200);
	/* A renewed certificate is taken for the next connection. */
	board_identity(&b, 1, PKI_NODE, &ca, &ca);
	front_identity_changed(b.front);
	assert_int_equal(fetch(&b, false, "/healthz", &body), 200);
	front_model_changed(b.front, 1);
	buf_free(&body);
	board_close(&b);
}

static void test_port_taken(void **state)
{
	const char *why = "";
	char *message = NULL;
	struct board b;
	struct board second;
	struct front *front;

	(void)state;
	board_open(&b);
	board_identity(&b, 1, PKI_NODE, &ca, &ca);
	board_serve(&b);
	board_open(&second);
	assert_int_equal(config_set(&second.config, "api.listen", b.address, &message), 0);
	assert_int_equal(front_start(&second.config, &second.core, &front, &why), -EADDRINUSE);
	assert_non_null(strstr(why, b.address));
	board_close(&second);
	board_close(&b);
}

/* --- links --- */

static void pass(int from, int to, const char *text)
{
	char got[64] = "";
	size_t n = 0;

	assert_int_equal(write(from, text, strlen(text)), strlen(text));
	for (int i = 0; n < strlen(text) && i < PATIENCE_MS; i++) {
		ssize_t rv = read(to, got + n, sizeof(got) - 1 - n);

		if (rv > 0)
			n += (size_t)rv;
		else
			usleep(1000);
	}
	got[n] = '\0';
	assert_string_equal(got, text);
}

static void test_link(void **state)
{
	struct board a;
	struct board b;

	(void)state;
	board_open(&a);
	board_open(&b);
	board_identity(&a, 1, PKI_NODE, &ca, &ca);
	board_identity(&b, 2, PKI_NODE, &ca, &ca);
	board_serve(&a);
	board_serve(&b);
	front_link_dial(b.front, 7, a.address, "tiebreak-raft/1", 1);
	core_wait(&b.core, is_dialed);
	assert_true(b.core.dialed_fd >= 0);
	core_wait(&a.core, is_accepted);
	assert_int_equal(a.core.accepted_node, 2);
	assert_string_equal(a.core.accepted_alpn, "tiebreak-raft/1");
	pass(b.core.dialed_fd, a.core.accepted_fd, "hello");
	pass(a.core.accepted_fd, b.core.dialed_fd, "and back");
	board_close(&b);
	board_close(&a);
}

enum { FLOOD = 40 };

/* Connections from 127.0.0.2 that never say a word. */
struct flood {
	int fds[FLOOD];
};

static unsigned flood_refused(const struct flood *flood)
{
	unsigned refused = 0;
	char byte;

	for (unsigned i = 0; i < FLOOD; i++)
		refused += recv(flood->fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 ||
			   errno != EAGAIN;
	return refused;
}

static void flood_begin(struct flood *flood, struct board *b, unsigned places)
{
	const struct sockaddr_in from = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(0x7f000002)};
	struct address to;

	assert_int_equal(address_parse(b->address, &to), 0);
	for (unsigned i = 0; i < FLOOD; i++) {
		flood->fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(bind(flood->fds[i], (const void *)&from, sizeof(from)), 0);
		assert_int_equal(connect(flood->fds[i], &to.socket.any, to.socket_len), 0);
	}
	for (int i = 0; flood_refused(flood) < FLOOD - places && i < PATIENCE_MS; i++)
		usleep(1000);
	assert_int_equal(flood_refused(flood), FLOOD - places);
}

static void flood_end(struct flood *flood)
{
	for (unsigned i = 0; i < FLOOD; i++)
		close(flood->fds[i]);
}

static unsigned refused_in_metrics(struct board *b)
{
	static const char name[] = "\ntiebreak_connections_refused_total ";
	struct buf body = {0};
	unsigned refused = 0;
	const char *at;

	if (fetch(b, true, "/metrics", &body) == 200) {
		at = strstr(buf_string(&body), name);
		refused = at != NULL ? (unsigned)atoi(at + sizeof(name) - 1) : 0;
	}
	buf_free(&body);
	return refused;
}

static void set(struct board *b, const char *name, const char *value)
{
	char *message = NULL;

	assert_int_equal(config_set(&b->config, name, value, &message), 0);
}

/* A link from `b` to `a`: its ends are the caller's. */
static bool link_make(struct board *b, struct board *a, int ends[2])
{
	bool made;

	front_link_dial(b->front, 7, a->address, "tiebreak-peer/1", 1);
	core_wait(&b->core, is_dialed);
	made = b->core.dialed_fd >= 0;
	if (made) {
		core_wait(&a->core, is_accepted);
		ends[0] = b->core.dialed_fd;
		ends[1] = a->core.accepted_fd;
		a->core.accepted_fd = -1;
	}
	b->core.dialed_fd = INT32_MIN;
	return made;
}

/* One address has a few places until it has shaken hands, and the rest is for the others. */
static void test_flood(void **state)
{
	struct flood flood;
	struct buf body = {0};
	struct board b;

	(void)state;
	board_make(&b);
	set(&b, "api.pending-per-address-max", "4");
	board_start(&b);
	board_identity(&b, 1, PKI_NODE, &ca, &ca);
	board_serve(&b);
	flood_begin(&flood, &b, 4);
	assert_int_equal(fetch(&b, false, "/healthz", &body), 200);
	for (int i = 0; refused_in_metrics(&b) != FLOOD - 4 && i < PATIENCE_MS; i += 100)
		usleep(100000);
	assert_int_equal(refused_in_metrics(&b), FLOOD - 4);
	flood_end(&flood);
	buf_free(&body);
	board_close(&b);
}

/* A model that holds the board `node` at `address`. */
static void board_model(struct board *b, uint64_t node, const char *address)
{
	Tb__Node row = TB__NODE__INIT;
	struct store *s;

	snprintf(b->core.model, sizeof(b->core.model), "%s/model.db", b->dir);
	assert_int_equal(store_open(b->core.model, &s), 0);
	row.id = node;
	row.name = mem_strdup("other");
	row.address = mem_strdup(address);
	assert_int_equal(store_begin(s), 0);
	assert_int_equal(store_node_put(s, &row), 0);
	assert_int_equal(store_commit(s, 1), 0);
	store_close(s);
	free(row.name);
	free(row.address);
}

/* All places are taken, but those of the boards: one is known by what the model says, one by the
 * certificate of its last link. */
static void test_flood_and_boards(void **state)
{
	enum { PLACES = 8 + 16 }; /* connections-max, and those who join */
	struct flood flood;
	struct board a;
	struct board b;

	(void)state;
	for (unsigned known = 0; known < 3; known++) {
		int first[2] = {-1, -1};
		int second[2] = {-1, -1};

		board_make(&a);
		set(&a, "api.connections-max", "8");
		if (known == 1)
			board_model(&a, 2, "127.0.0.1:7443");
		board_start(&a);
		board_open(&b);
		board_identity(&a, 1, PKI_NODE, &ca, &ca);
		board_identity(&b, 2, PKI_NODE, &ca, &ca);
		board_serve(&a);
		board_serve(&b);
		if (known == 2)
			assert_true(link_make(&b, &a, first));
		flood_begin(&flood, &a, PLACES - (known == 2));
		assert_int_equal(link_make(&b, &a, second), known != 0);
		flood_end(&flood);
		for (unsigned i = 0; i < 2; i++) {
			close(first[i]);
			close(second[i]);
		}
		board_close(&b);
		board_close(&a);
	}
}

/* What dialing gives: another board than expected, one of another cluster, nobody. */
static void test_link_refused(void **state)
{
	struct board a;
	struct board b;

	(void)state;
	board_open(&a);
	board_open(&b);
	board_identity(&b, 2, PKI_NODE, &ca, &ca);
	front_link_dial(b.front, 7, "127.0.0.1:1", "tiebreak-peer/1", 1);
	core_wait(&b.core, is_dialed); /* no certificate yet */
	assert_int_equal(b.core.dialed_fd, -ENOTCONN);
	board_identity(&a, 1, PKI_NODE, &ca, &ca);
	board_serve(&a);
	board_serve(&b);
	b.core.dialed_fd = INT32_MIN;
	front_link_dial(b.front, 7, a.address, "tiebreak-peer/1", 3);
	core_wait(&b.core, is_dialed);
	assert_true(b.core.dialed_fd < 0);
	b.core.dialed_fd = INT32_MIN;
	front_link_dial(b.front, 7, "127.0.0.1:1", "tiebreak-peer/1", 1);
	core_wait(&b.core, is_dialed);
	assert_int_equal(b.core.dialed_fd, -ECONNREFUSED);
	board_identity(&a, 1, PKI_NODE, &other_ca, &other_ca);
	front_identity_changed(a.front);
	usleep(100000);
	b.core.dialed_fd = INT32_MIN;
	front_link_dial(b.front, 7, a.address, "tiebreak-peer/1", 1);
	core_wait(&b.core, is_dialed);
	assert_int_equal(b.core.dialed_fd, -EPROTO);
	board_close(&b);
	board_close(&a);
}

static void file_touch(const struct board *b, const char *name, int64_t ms)
{
	struct timespec times[2] = {{.tv_sec = ms / 1000}, {.tv_sec = ms / 1000}};
	char *path = mem_printf("%s/%s", b->dir, name);

	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	free(path);
}

/* Our clock is days behind that of whoever signed the other's certificate: it is not valid yet.
 * What the board wrote last, or a certificate of its own that is no older, tells it that it is
 * later. */
static void test_clock_behind(void **state)
{
	static const struct {
		int own_days, written_days;
		bool linked;
	} cases[] = {{0, 0, false}, {0, 6, true}, {5, 0, true}};
	struct board a;
	struct board b;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		board_open(&a);
		board_open(&b);
		signed_ahead_ms = 5 * day_ms;
		board_identity(&a, 1, PKI_NODE, &ca, &ca);
		signed_ahead_ms = cases[i].own_days * day_ms;
		board_identity(&b, 2, PKI_NODE, &ca, &ca);
		signed_ahead_ms = 0;
		file_touch(&b, "node.crt", clock_realtime_ms() + cases[i].written_days * day_ms);
		board_serve(&a);
		board_serve(&b);
		front_link_dial(b.front, 7, a.address, "tiebreak-peer/1", 1);
		core_wait(&b.core, is_dialed);
		if (cases[i].linked)
			assert_true(b.core.dialed_fd >= 0);
		else
			assert_int_equal(b.core.dialed_fd, -EPROTO);
		board_close(&b);
		board_close(&a);
	}
}

/* The clock was far ahead once, when a file was written: that time is not believed, or every
 * certificate would be expired for ever. */
static void test_clock_was_ahead(void **state)
{
	struct board a;
	struct board b;

	(void)state;
	board_open(&a);
	board_open(&b);
	board_identity(&a, 1, PKI_NODE, &ca, &ca);
	board_identity(&b, 2, PKI_NODE, &ca, &ca);
	file_touch(&a, "node.crt", clock_realtime_ms() + 10000 * day_ms);
	file_touch(&b, "node.crt", clock_realtime_ms() + 10000 * day_ms);
	board_serve(&a);
	board_serve(&b);
	front_link_dial(b.front, 7, a.address, "tiebreak-peer/1", 1);
	core_wait(&b.core, is_dialed);
	assert_true(b.core.dialed_fd >= 0);
	board_close(&b);
	board_close(&a);
}

/* --- admission --- */

static void join(struct board *b, const char *address, const char *pin)
{
	Tb__JoinRequest *request = mem_alloc(sizeof(*request));

	tb__join_request__init(request);
	request->token = mem_strdup("the secret");
	b->core.join_answered = false;
	b->core.joined_cluster[0] = '\0';
	front_join_dial(b->front, 9, address, pin, request);
	core_wait(&b->core, is_joined);
}

static void test_join(void **state)
{
	struct board a;
	struct board b;

	(void)state;
	board_open(&a);
	board_open(&b);
	board_identity(&a, 1, PKI_NODE, &ca, &ca);
	board_serve(&a);
	join(&b, a.address, ca.sha256);
	assert_int_equal(b.core.join_error, 0);
	assert_string_equal(b.core.joined_cluster, "0123");
	assert_string_equal(a.core.admitted_token, "the secret");
	/* The token of another cluster: its secret stays here. */
	join(&b, a.address, other_ca.sha256);
	assert_int_equal(b.core.join_error, -EACCES);
	assert_non_null(strstr(b.core.join_message, "another cluster"));
	assert_int_equal(a.core.admissions, 1);
	join(&b, "127.0.0.1:1", ca.sha256);
	assert_int_equal(b.core.join_error, -ECONNREFUSED);
	assert_non_null(strstr(b.core.join_message, "127.0.0.1:1"));
	board_close(&b);
	board_close(&a);
}

/* Somebody in the middle has the CA's certificate, which is public, and a certificate of his own,
 * or one that the CA gave to a client. He gets no secret. */
static void test_join_imposter(void **state)
{
	struct board a;
	struct board b;

	(void)state;
	board_open(&a);
	board_open(&b);
	board_identity(&a, 1, PKI_NODE, &other_ca, &ca);
	board_serve(&a);
	join(&b, a.address, ca.sha256);
	assert_int_equal(b.core.join_error, -EACCES);
	board_identity(&a, 1, PKI_CLIENT, &ca, &ca);
	front_identity_changed(a.front);
	usleep(100000);
	join(&b, a.address, ca.sha256);
	assert_int_not_equal(b.core.join_error, 0);
	assert_int_equal(a.core.admissions, 0);
	board_close(&b);
	board_close(&a);
}

/* While two CAs are believed, a token of either leads to the board, which shows a certificate of
 * the new one and what leads from it to the old one. */
static void test_join_rotated(void **state)
{
	struct authority next;
	struct board a;
	struct board b;
	struct identity id = {0};
	const char *why = "";
	char *bridge, *leaf;

	(void)state;
	authority_make(&next);
	assert_int_equal(
		pki_bridge(ca.cert.pem, ca.key, next.cert.pem, clock_realtime_ms(), &bridge), 0);
	board_open(&a);
	board_open(&b);
	board_identity(&a, 1, PKI_NODE, &next, &next);
	assert_int_equal(identity_load(a.dir, &id, &why), 0);
	leaf = id.cert;
	id.cert = mem_printf("%s%s%s", leaf, bridge, ca.cert.pem);
	assert_int_equal(identity_save(a.dir, &id, &why), 0);
	board_serve(&a);
	join(&b, a.address, ca.sha256);
	assert_int_equal(b.core.join_error, 0);
	join(&b, a.address, next.sha256);
	assert_int_equal(b.core.join_error, 0);
	join(&b, a.address, other_ca.sha256);
	assert_int_equal(b.core.join_error, -EACCES);
	/* The old CA is shown, with nothing that leads to it. */
	free(id.cert);
	id.cert = mem_printf("%s%s", leaf, ca.cert.pem);
	assert_int_equal(identity_save(a.dir, &id, &why), 0);
	front_identity_changed(a.front);
	usleep(100000);
	join(&b, a.address, ca.sha256);
	assert_int_equal(b.core.join_error, -EACCES);
	assert_int_equal(a.core.admissions, 2);
	board_close(&b);
	board_close(&a);
	identity_free(&id);
	authority_free(&next);
	free(bridge);
	free(leaf);
}

static int setup(void **state)
{
	(void)state;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	authority_make(&ca);
	authority_make(&other_ca);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	authority_free(&ca);
	authority_free(&other_ca);
	curl_global_cleanup();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_socket_before_identity),
		cmocka_unit_test(test_https),
		cmocka_unit_test(test_port_taken),
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_link_refused),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_flood_and_boards),
		cmocka_unit_test(test_clock_behind),
		cmocka_unit_test(test_clock_was_ahead),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_join_imposter),
		cmocka_unit_test(test_join_rotated),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
