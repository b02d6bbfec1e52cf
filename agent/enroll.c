#include "agent/enroll.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/file.h"
#include "agent/identity_files.h"
#include "agent/tls.h"
#include "lib/address.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/api.pb-c.h"
#include "proto/json.h"

enum { PATIENCE_MS = 15000, ANSWER_MAX = 256 << 10, TOKEN_LEN = 150, TOKEN_CA_AT = 86 };

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
	va_list args;

	fputs("witness-agent: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -EINVAL;
}

/* --- the connection: blocking, with one deadline for all --- */

struct call {
	int fd;
	struct tls_link *tls;
	uint64_t end_ms;
};

static int call_wait(struct call *c, short events)
{
	uint64_t now = clock_boottime_ms();
	struct pollfd fd = {.fd = c->fd, .events = events};

	if (now >= c->end_ms || poll(&fd, 1, (int)(c->end_ms - now)) <= 0)
		return -ETIMEDOUT;
	return 0;
}

static int call_connect(struct call *c, const char *board)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	struct address a;
	char port[8];
	int error = 0;
	socklen_t len = sizeof(error);

	if (address_parse(board, &a) != 0)
		return -EINVAL;
	if (a.kind == ADDRESS_NAME) {
		snprintf(port, sizeof(port), "%u", a.port);
		if (getaddrinfo(a.host, port, &hints, &found) != 0)
			return -EADDRNOTAVAIL;
		memcpy(&a.socket, found->ai_addr, found->ai_addrlen);
		a.socket_len = found->ai_addrlen;
		freeaddrinfo(found);
	}
	c->fd = socket(a.socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return -errno;
	if (connect(c->fd, &a.socket.any, a.socket_len) != 0 && errno != EINPROGRESS)
		return -errno;
	if (call_wait(c, POLLOUT) != 0)
		return -ETIMEDOUT;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return -error;
}

static int call_handshake(struct call *c)
{
	int rv;

	while ((rv = tls_link_handshake(c->tls)) == -EAGAIN) {
		if (call_wait(c, tls_link_wants_write(c->tls) ? POLLOUT : POLLIN) != 0)
			return -ETIMEDOUT;
	}
	return rv;
}

static int call_send(struct call *c, const struct buf *request)
{
	size_t sent = 0;

	while (sent < request->len) {
		int took = tls_link_write(c->tls, request->data + sent, request->len - sent);

		if (took >= 0)
			sent += (size_t)took;
		else if (took != -EAGAIN || call_wait(c, POLLOUT) != 0)
			return -EIO;
	}
	return 0;
}

static int call_receive(struct call *c, struct buf *answer)
{
	int got;

	do {
		got = tls_link_read(c->tls, buf_reserve(answer, 4096), 4096);
		if (got > 0)
			answer->len += (size_t)got;
		if (answer->len > ANSWER_MAX)
			return -EFBIG;
		if (got == -EAGAIN && call_wait(c, POLLIN) != 0)
			return -ETIMEDOUT;
	} while (got > 0 || got == -EAGAIN);
	return answer->len > 0 ? 0 : -EIO;
}

int enroll_answer_parse(const char *text, size_t len, unsigned *ret_status, const char **ret_body,
			size_t *ret_body_len)
{
	static const char field[] = "\r\ncontent-length:";
	const char *end = memmem(text, len, "\r\n\r\n", 4);
	uint64_t status, body_len;
	char number[24] = "";
	const char *at;

	if (len < 12 || memcmp(text, "HTTP/1.1 ", 9) != 0 || end == NULL)
		return -EPROTO;
	memcpy(number, text + 9, 3);
	if (text_to_u64(number, 100, 599, &status) != 0)
		return -EPROTO;
	for (at = text; at < end; at++)
		if ((size_t)(end - at) >= sizeof(field) - 1 &&
		    strncasecmp(at, field, sizeof(field) - 1) == 0)
			break;
	if (at == end)
		return -EPROTO;
	at += sizeof(field) - 1;
	while (at < end && *at == ' ')
		at++;
	if (end - at >= (long)sizeof(number))
		end = at + sizeof(number) - 1;
	memset(number, 0, sizeof(number));
	for (size_t i = 0; at + i < end && at[i] >= '0' && at[i] <= '9'; i++)
		number[i] = at[i];
	end = memmem(text, len, "\r\n\r\n", 4);
	if (text_to_u64(number, 0, ANSWER_MAX, &body_len) != 0 ||
	    len - (size_t)(end + 4 - text) < body_len)
		return -EPROTO;
	*ret_status = (unsigned)status;
	*ret_body = end + 4;
	*ret_body_len = (size_t)body_len;
	return 0;
}

/* --- the steps --- */

/* The board's own words, or the bare status. */
static int refused(unsigned status, const char *body, size_t len)
{
	struct json_error error;
	ProtobufCMessage *message;
	const Tb__Problem *p;

	if (json_decode(&tb__problem__descriptor, body, len, &message, &error) != 0)
		return fail("the board answered with status %u", status);
	p = (const Tb__Problem *)message;
	fail("%s%s%s%s%s", p->detail[0] != '\0' ? p->detail : p->title, p->n_errors > 0 ? ": " : "",
	     p->n_errors > 0 ? p->errors[0]->message : "", p->remedy[0] != '\0' ? "; " : "",
	     p->remedy);
	protobuf_c_message_free_unpacked(message, NULL);
	return -EACCES;
}

static void request_write(const struct enroll_request *r, const char *site, const char *csr,
			  struct buf *out)
{
	Tb__AgentEnrollRequest request = TB__AGENT_ENROLL_REQUEST__INIT;
	struct buf body = {0};

	request.csr = (char *)csr;
	request.node = r->node;
	json_encode(&request.base, &body);
	buf_printf(out, "POST /v1/sites/%s:enroll-agent HTTP/1.1\r\nHost: %s\r\n", site, r->board);
	if (r->token != NULL)
		buf_printf(out, "Authorization: Bearer %s\r\n", r->token);
	buf_printf(out,
		   "Content-Type: application/json\r\nContent-Length: %zu\r\n"
		   "Connection: close\r\n\r\n",
		   body.len);
	buf_append(out, body.data, body.len);
	buf_free(&body);
}

/* 0 and the enrolment (owned by the caller). */
static int ask(const struct enroll_request *r, struct call *c, struct tls_identity *id,
	       const char *csr, Tb__AgentEnrollment **ret)
{
	struct buf request = {0}, answer = {0};
	struct json_error error;
	ProtobufCMessage *message;
	const char *body;
	size_t body_len;
	unsigned status;
	int rv = call_connect(c, r->board);

	if (rv != 0)
		return fail("%s: %s; is it HOST:PORT of a board, and does witnessd run there?",
			    r->board, strerror(-rv));
	c->tls = tls_link_new(id, c->fd, "http/1.1");
	rv = call_handshake(c);
	if (rv != 0)
		return fail("%s: %s", r->board,
			    rv == -ETIMEDOUT ? "it does not answer" : tls_link_error(c->tls));
	/* Before the token is shown: a stranger would keep it. */
	if (r->token != NULL && tls_link_has_root(c->tls, r->token + TOKEN_CA_AT) != 0)
		return fail("%s is not a board of the cluster that the token is of; check both",
			    r->board);
	request_write(r, r->site, csr, &request);
	rv = call_send(c, &request);
	mem_wipe(request.data, request.len);
	buf_free(&request);
	if (rv == 0)
		rv = call_receive(c, &answer);
	if (rv != 0 || enroll_answer_parse((const char *)answer.data, answer.len, &status, &body,
					   &body_len) != 0)
		rv = fail("%s: its answer did not come or cannot be read; try again", r->board);
	else if (status != 200)
		rv = refused(status, body, body_len);
	else if (json_decode(&tb__agent_enrollment__descriptor, body, body_len, &message, &error) !=
		 0)
		rv = fail("%s: its answer cannot be read: %s", r->board, error.message);
	else
		*ret = (Tb__AgentEnrollment *)message;
	buf_free(&answer);
	return rv;
}

static int store(const struct enroll_request *r, const char *name, const char *text, unsigned mode)
{
	char *path = mem_printf("%s/%s", r->state_dir, name);
	int rv = file_write(path, text, mode);

	if (rv != 0)
		fail("cannot write %s: %s", path, strerror(-rv));
	free(path);
	return rv;
}

static int config_write(const struct enroll_request *r, const Tb__AgentEnrollment *e)
{
	struct buf text = {0};
	int rv;

	buf_printf(&text,
		   "# witness-agent(8) explains every setting.\n"
		   "site = %s\nnode = %u\nboards = ",
		   e->site, e->node);
	for (size_t i = 0; i < e->n_boards; i++)
		buf_printf(&text, "%s%s", i > 0 ? ", " : "", e->boards[i]);
	buf_puts(&text, "\n\n# The other nodes, to see whether they are there: NODE@ADDRESS, ...\n"
			"#peers = 2@10.1.0.2\n"
			"\n# What runs here needs the lease: how it is started and stopped.\n"
			"#on-gain = systemctl start my.service\n"
			"#on-loss = systemctl stop my.service\n"
			"#lease = 10s\n");
	rv = file_write(r->config, buf_string(&text), 0644);
	buf_free(&text);
	if (rv != 0)
		fail("cannot write %s: %s", r->config, strerror(-rv));
	return rv;
}

static int identity_write(const struct enroll_request *r, const Tb__AgentEnrollment *e,
			  const char *key)
{
	/* The key goes beside the old one until its certificate is there: whenever this ends, one
	 * of the two keys fits the certificate (identity_files_read). */
	int rv = store(r, IDENTITY_NEXT_KEY, key, 0600);

	if (rv == 0)
		rv = store(r, "agent.crt", e->certificate, 0644);
	if (rv == 0)
		rv = store(r, "ca.crt", e->ca_certificate, 0644);
	if (rv != 0)
		return rv; /* told */
	rv = identity_files_settle(r->state_dir);
	if (rv != 0)
		fail("cannot put the new key in place in %s: %s", r->state_dir, strerror(-rv));
	return rv;
}

static int results_write(const struct enroll_request *r, const Tb__AgentEnrollment *e,
			 const char *key)
{
	bool fresh = access(r->config, F_OK) != 0;
	int rv;

	/* The CA may be another than the token names (a rotation): the board is one of the token's
	 * cluster, or it would not have been asked. */
	if (mkdir(r->state_dir, 0700) != 0 && errno != EEXIST)
		return fail("cannot make %s: %s", r->state_dir, strerror(errno));
	rv = identity_write(r, e, key);
	if (rv == 0 && fresh)
		rv = config_write(r, e);
	if (rv != 0)
		return rv;
	printf("node %u of site %s is enrolled (certificate %s); key and certificate are in %s\n",
	       e->node, e->site, e->serial, r->state_dir);
	if (fresh)
		printf("%s was written; set on-gain and on-loss there, then:\n", r->config);
	else
		printf("%s was there already and is unchanged; then:\n", r->config);
	printf("  systemctl enable --now witness-agent\n");
	return 0;
}

static bool token_sound(const char *token)
{
	return strlen(token) == TOKEN_LEN && strncmp(token, "tb1.", 4) == 0 && token[20] == '.' &&
	       token[TOKEN_CA_AT - 1] == '.';
}

/* One board is asked with a new key; what it answers is taken by `take`. */
static int enroll_ask(const struct enroll_request *r, struct tls_identity *id,
		      int (*take)(const struct enroll_request *r, const Tb__AgentEnrollment *e,
				  const char *key))
{
	struct call c = {.fd = -1, .end_ms = clock_boottime_ms() + PATIENCE_MS};
	Tb__AgentEnrollment *e = NULL;
	char *key, *csr;
	int rv;

	if (tls_key_new(id, r->site, &key, &csr) != 0)
		return fail("no key could be made");
	rv = ask(r, &c, id, csr, &e);
	if (rv == 0)
		rv = take(r, e, key);
	if (e != NULL)
		tb__agent_enrollment__free_unpacked(e, NULL);
	tls_link_free(c.tls);
	if (c.fd >= 0)
		close(c.fd);
	mem_wipe(key, strlen(key));
	free(key);
	free(csr);
	return rv;
}

int enroll_run(const struct enroll_request *r)
{
	struct tls_identity *id;
	const char *why = "";
	int rv;

	if (!token_sound(r->token))
		return fail("that is not a token; copy the whole text, it begins with tb1.");
	if (tls_identity_new(NULL, NULL, NULL, &id, &why) != 0)
		return fail("%s", why);
	rv = enroll_ask(r, id, results_write);
	tls_identity_free(id);
	return rv;
}

int enroll_renew(const struct settings *s)
{
	struct enroll_request r = {.node = s->node, .site = s->site, .state_dir = s->state_dir};
	struct identity_files files;
	struct tls_identity *id;
	const char *why = "";
	int rv;

	rv = identity_files_read(s->state_dir, &files, &why);
	if (rv != 0)
		return fail("%s; run \"witness-agent enroll\"", why);
	rv = tls_identity_new(files.certificate, files.key, files.ca, &id, &why);
	identity_files_free(&files);
	if (rv != 0)
		return fail("%s", why);
	rv = -ENOENT;
	for (unsigned i = 0; rv != 0 && s->boards[i] != NULL; i++) {
		r.board = s->boards[i];
		rv = enroll_ask(&r, id, identity_write);
	}
	tls_identity_free(id);
	return rv;
}
