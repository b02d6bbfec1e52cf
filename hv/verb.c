#include "hv/verb.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv/spec.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/frame.h"
#include "proto/hv.pb-c.h"
#include "proto/json.h"

enum { PATIENCE_S = 30, ANSWER_MAX = 1 << 20 };

const struct verb verbs[] = {
	{"status", "SOCKET", 1, true, false, "What it is and how it is",
	 "The state, the size, the time it has run, the lease that is left, and the layers of the "
	 "sandbox that really hold."},
	{"stats", "SOCKET", 1, true, false, "Its counters",
	 "Exits by reason, block and network counters, stolen time, memory really used. Counters "
	 "only grow; a gauge may fall."},
	{"pause", "SOCKET", 1, false, false, "Stop its processors and devices",
	 "A paused VM answers nobody and loses its network connections after a while. Its lease "
	 "goes on."},
	{"resume", "SOCKET", 1, false, false, "Let it go on", ""},
	{"button", "SOCKET", 1, false, false, "Press its power button",
	 "The guest is asked to shut down and may take its time. It needs a driver: virtio_input "
	 "and, with systemd, nothing else."},
	{"stop", "SOCKET", 1, false, false, "End it at once",
	 "As if the power was cut: what the guest has not synced is lost to it."},
	{"reset", "SOCKET", 1, false, false, "Start the guest anew, as if the power was cycled",
	 ""},
	{"save", "SOCKET DIRECTORY", 2, false, true, "Write a snapshot",
	 "The directory gets the files `state` and `memory`, durable when the command returns; "
	 "what is there already is not written over. The VM stands still meanwhile and goes on "
	 "after, unless --stay-paused is given or it was paused. The disks are not in it: a "
	 "restore refuses a writable one that was written since, for the guest would destroy it. "
	 "Give --stay-paused and copy them with `cp -a` before the VM goes on."},
	{"balloon", "SOCKET MIB", 2, false, false, "Ask it to give memory back",
	 "The guest is asked to do without so many MiB of its memory; 0 gives it all back. It may "
	 "take its time."},
	{"lease", "SOCKET DURATION", 2, false, false, "Let it run so long from now",
	 "\"90s\", \"5m\", \"24h\". When the time is over the process is gone, whatever hangs; "
	 "\"0s\" ends it now. Once it has a lease a VM cannot be without one. A VM with a parent "
	 "takes its lease from the parent only."},
	{0},
};

const struct verb *verb_find(const char *name)
{
	for (const struct verb *v = verbs; v->name != NULL; v++) {
		if (strcmp(v->name, name) == 0) {
			return v;
		}
	}
	return NULL;
}

/* Talking */

static int refuse(struct fault *fault, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(struct fault *fault, int status, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)fault_set(fault, -EIO, "%s", text);
	return status;
}

static int vm_connect(const char *path, int *ret_fd, struct fault *fault)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = PATIENCE_S};
	int error;
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return refuse(fault, VERB_USAGE, "%.120s: too long for the path of a socket", path);
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		*ret_fd = fd;
		return VERB_OK;
	}
	error = errno;
	if (fd >= 0) {
		close(fd);
	}
	return refuse(fault, VERB_UNREACHABLE, "%s: %s", path,
		      error == ECONNREFUSED ? "no VM answers there any more" : strerror(error));
}

/* With `count` descriptors (0 or 2). */
static int request_send(int fd, const Tb__VmRequest *request, const int *fds, size_t count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct buf out = {0};
	struct iovec iov;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;
	int rv;

	frame_append(&out, &request->base);
	iov = (struct iovec){.iov_base = out.data, .iov_len = out.len};
	if (count > 0) {
		struct cmsghdr *c;

		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	rv = sent < 0 ? -errno : (size_t)sent == out.len ? 0 : -EIO;
	buf_free(&out);
	return rv;
}

static int receive(int fd, void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t got = recv(fd, (char *)data + done, len - done, 0);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			return got == 0 ? -ENOTCONN : -errno;
		}
		done += (size_t)got;
	}
	return 0;
}

static int reply_receive(int fd, Tb__VmReply **ret)
{
	uint8_t head[FRAME_HEAD];
	ProtobufCMessage *message;
	struct buf payload = {0};
	size_t len;
	int rv = receive(fd, head, sizeof(head));

	if (rv < 0) {
		return rv;
	}
	len = frame_payload_len(head);
	if (len > ANSWER_MAX) {
		return -EMSGSIZE;
	}
	rv = receive(fd, buf_reserve(&payload, len), len);
	rv = rv < 0 ? rv
		    : frame_unpack(&tb__vm_reply__descriptor, payload.data, len, FRAME_MEMORY(len),
				   &message);
	buf_free(&payload);
	if (rv == 0) {
		*ret = (Tb__VmReply *)message;
	}
	return rv;
}

/* Asks and awaits the answer; one that says no is VERB_REFUSED with its sentence. */
static int ask(int fd, Tb__VmRequest *request, const int *fds, size_t count, Tb__VmReply **ret,
	       struct fault *fault)
{
	int rv = request_send(fd, request, fds, count);

	rv = rv < 0 ? rv : reply_receive(fd, ret);
	if (rv == -EAGAIN || rv == -EWOULDBLOCK) {
		return refuse(fault, VERB_UNREACHABLE, "the VM does not answer (for %d s)",
			      PATIENCE_S);
	}
	if (rv < 0) {
		return refuse(fault, VERB_UNREACHABLE,
			      "the VM ended, or does not speak our words: %s", strerror(-rv));
	}
	if ((*ret)->error[0] != '\0') {
		(void)refuse(fault, VERB_REFUSED, "%s", (*ret)->error);
		tb__vm_reply__free_unpacked(*ret, NULL);
		return VERB_REFUSED;
	}
	return VERB_OK;
}

/* Showing */

static void json_print(const ProtobufCMessage *message, FILE *out)
{
	struct buf text = {0};

	json_encode_full(message, &text);
	fprintf(out, "%s\n", buf_string(&text));
	buf_free(&text);
}

/* "3d 4h", "5m 12s", "0.250s" */
static void duration_print(uint64_t ms, char text[32])
{
	uint64_t s = ms / 1000;

	if (s >= 86400) {
		snprintf(text, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s % 86400 / 3600);
	} else if (s >= 3600) {
		snprintf(text, 32, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s % 3600 / 60);
	} else if (s >= 60) {
		snprintf(text, 32, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
	} else {
		snprintf(text, 32, "%" PRIu64 ".%03u s", s, (unsigned)(ms % 1000));
	}
}

static void status_print(const Tb__VmStatus *s, FILE *out)
{
	char word[64];
	char text[32];

	fprintf(out, "name      %s\n", s->name);
	fprintf(out, "state     %s\n",
		json_enum_word(&tb__vm_state__descriptor, (int)s->state, word));
	duration_print(s->running_ms, text);
	fprintf(out, "running   %s\n", text);
	fprintf(out, "vcpus     %u\n", s->vcpus);
	if (s->cores[0] != '\0') {
		fprintf(out, "cores     %s\n", s->cores);
	}
	fprintf(out, "memory    %u MiB, %s\n", s->memory_mib, s->memory_backing);
	fprintf(out, "gic       %s\n",
		json_enum_word(&tb__gic_version__descriptor, (int)s->gic, word));
	if (s->disk_engine[0] != '\0') {
		fprintf(out, "disks     by %s\n", s->disk_engine);
	}
	fprintf(out, "resets    %" PRIu64 "\n", s->resets);
	duration_print(s->lease_left_ms < 0 ? 0 : (uint64_t)s->lease_left_ms, text);
	fprintf(out, "lease     %s\n", s->lease_left_ms < 0 ? "none" : text);
	fprintf(out, "sandbox   %s\n", s->sandbox);
}

static void stats_print(const Tb__VmStats *s, FILE *out)
{
	int width = 0;

	for (size_t i = 0; i < s->n_counters; i++) {
		int len = (int)strlen(s->counters[i]->name);

		width = len > width ? len : width;
	}
	for (size_t i = 0; i < s->n_counters; i++) {
		fprintf(out, "%-*s  %20" PRIu64 "%s\n", width, s->counters[i]->name,
			s->counters[i]->value, s->counters[i]->gauge ? "  now" : "");
	}
}

static int reply_show(const Tb__VmReply *reply, bool json, FILE *out, struct fault *fault)
{
	const ProtobufCMessage *message = NULL;

	if (reply->status != NULL) {
		message = &reply->status->base;
	} else if (reply->stats != NULL) {
		message = &reply->stats->base;
	}
	if (message == NULL) {
		return refuse(fault, VERB_REFUSED, "the VM said nothing");
	}
	if (json) {
		json_print(message, out);
	} else if (reply->status != NULL) {
		status_print(reply->status, out);
	} else {
		stats_print(reply->stats, out);
	}
	return VERB_OK;
}

/* Snapshots */

struct save {
	char *fresh[2], *final[2]; /* paths of state and memory while they are written, and after */
	int fds[2];
};

static void save_free(struct save *s)
{
	for (unsigned i = 0; i < 2; i++) {
		if (s->fds[i] >= 0) {
			close(s->fds[i]);
			(void)unlink(s->fresh[i]);
		}
		free(s->fresh[i]);
		free(s->final[i]);
	}
}

static int save_file(struct save *s, unsigned i, const char *folder, const char *name,
		     struct fault *fault)
{
	s->final[i] = mem_printf("%s/%s", folder, name);
	s->fresh[i] = mem_printf("%s/%s.new", folder, name);
	if (access(s->final[i], F_OK) == 0) {
		return refuse(fault, VERB_REFUSED,
			      "%s is there already; a snapshot is not written over another",
			      s->final[i]);
	}
	(void)unlink(s->fresh[i]); /* of a save that was cut off */
	s->fds[i] = open(s->fresh[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->fds[i] < 0) {
		return refuse(fault, VERB_REFUSED, "cannot make %s: %s", s->fresh[i],
			      strerror(errno));
	}
	return VERB_OK;
}

static int save_open(struct save *s, const char *folder, struct fault *fault)
{
	int status;

	if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
		return refuse(fault, VERB_REFUSED, "cannot make %s: %s", folder, strerror(errno));
	}
	status = save_file(s, 0, folder, "state", fault);
	return status != VERB_OK ? status : save_file(s, 1, folder, "memory", fault);
}

/* The memory first: a state file without its memory would be no snapshot. */
static int save_keep(struct save *s, const char *folder, struct fault *fault)
{
	int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rv = dir < 0 ? -errno : 0;

	for (int i = 1; rv == 0 && i >= 0; i--) {
		if (fsync(s->fds[i]) < 0 || rename(s->fresh[i], s->final[i]) < 0) {
			rv = -errno;
		}
	}
	if (rv == 0 && fsync(dir) < 0) {
		rv = -errno;
	}
	if (dir >= 0) {
		close(dir);
	}
	if (rv < 0) {
		(void)unlink(s->final[1]); /* a memory without its state */
	}
	return rv < 0 ? refuse(fault, VERB_REFUSED, "cannot keep the snapshot in %s: %s", folder,
			       strerror(-rv))
		      : VERB_OK;
}

static int save_run(int fd, const char *folder, bool stay_paused, struct fault *fault)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmSave words = TB__VM_SAVE__INIT;
	struct timeval forever = {0};
	struct save s = {.fds = {-1, -1}};
	Tb__VmReply *reply;
	int status = save_open(&s, folder, fault);

	words.stay_paused = stay_paused;
	request.what_case = TB__VM_REQUEST__WHAT_SAVE;
	request.save = &words;
	if (status == VERB_OK) {
		/* A big memory on a slow card: the end of the connection ends the wait. */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
		status = ask(fd, &request, s.fds, 2, &reply, fault);
	}
	if (status == VERB_OK) {
		tb__vm_reply__free_unpacked(reply, NULL);
		status = save_keep(&s, folder, fault);
	}
	save_free(&s);
	return status;
}

/* Verbs */

static int argument_number(const char *text, uint64_t max, uint64_t *ret, struct fault *fault)
{
	if (text_to_u64(text, 0, max, ret) != 0) {
		return refuse(fault, VERB_USAGE,
			      "\"%.64s\" is not a whole number of MiB from 0 to %" PRIu64, text,
			      max);
	}
	return VERB_OK;
}

static int argument_duration(const char *text, uint64_t *ret, struct fault *fault)
{
	if (text_to_duration_ms(text, ret) != 0 || *ret > SPEC_LEASE_MAX_MS) {
		return refuse(fault, VERB_USAGE,
			      "\"%.64s\" is not a time of at most a day with its unit, such as 90s "
			      "or 5m",
			      text);
	}
	return VERB_OK;
}

/* The request of a verb without an answer to show. */
static int request_make(const struct verb *verb, char *const args[], Tb__VmRequest *q,
			Tb__VmBalloon *balloon, Tb__VmLease *lease, struct fault *fault)
{
	static const struct {
		const char *name;
		Tb__VmRequest__WhatCase what;
	} plain[] = {
		{"status", TB__VM_REQUEST__WHAT_STATUS},
		{"stats", TB__VM_REQUEST__WHAT_STATS},
		{"pause", TB__VM_REQUEST__WHAT_PAUSE},
		{"resume", TB__VM_REQUEST__WHAT_RESUME},
		{"stop", TB__VM_REQUEST__WHAT_STOP},
		{"reset", TB__VM_REQUEST__WHAT_RESET},
		{"button", TB__VM_REQUEST__WHAT_POWER_BUTTON},
	};
	uint64_t number = 0;
	int status = VERB_OK;

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (strcmp(plain[i].name, verb->name) == 0) {
			q->what_case = plain[i].what;
			q->status = true; /* any of the oneof's words */
			return VERB_OK;
		}
	}
	if (strcmp(verb->name, "balloon") == 0) {
		status = argument_number(args[1], UINT32_MAX, &number, fault);
		balloon->target_mib = (uint32_t)number;
		q->what_case = TB__VM_REQUEST__WHAT_BALLOON;
		q->balloon = balloon;
	} else {
		status = argument_duration(args[1], &number, fault);
		lease->length_ms = number;
		q->what_case = TB__VM_REQUEST__WHAT_LEASE;
		q->lease = lease;
	}
	return status;
}

/* A VM that was stopped has ended when its connection does. */
static void await_end(int fd)
{
	char byte;

	while (recv(fd, &byte, 1, 0) > 0) {
	}
}

static int plain_run(int fd, const struct verb *verb, Tb__VmRequest *request, bool json, FILE *out,
		     struct fault *fault)
{
	Tb__VmReply *reply;
	int status;

	/* What ends at once has no time for an answer. */
	if (request->what_case == TB__VM_REQUEST__WHAT_LEASE && request->lease->length_ms == 0) {
		status = request_send(fd, request, NULL, 0) < 0 ? VERB_UNREACHABLE : VERB_OK;
		if (status == VERB_OK && reply_receive(fd, &reply) == 0) {
			status = refuse(fault, VERB_REFUSED, "%s", reply->error);
			tb__vm_reply__free_unpacked(reply, NULL);
		}
		return status;
	}
	status = ask(fd, request, NULL, 0, &reply, fault);
	if (status != VERB_OK) {
		return status;
	}
	if (verb->json) {
		status = reply_show(reply, json, out, fault);
	}
	tb__vm_reply__free_unpacked(reply, NULL);
	if (request->what_case == TB__VM_REQUEST__WHAT_STOP) {
		await_end(fd);
	}
	return status;
}

int verb_run(const struct verb *verb, char *const args[], const struct verb_options *options,
	     FILE *out, struct fault *fault)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmBalloon balloon = TB__VM_BALLOON__INIT;
	Tb__VmLease lease = TB__VM_LEASE__INIT;
	int status = VERB_OK;
	int fd = -1;

	if (strcmp(verb->name, "save") != 0) {
		status = request_make(verb, args, &request, &balloon, &lease, fault);
	}
	status = status != VERB_OK ? status : vm_connect(args[0], &fd, fault);
	if (status != VERB_OK) {
		return status;
	}
	if (strcmp(verb->name, "save") == 0) {
		status = save_run(fd, args[1], options->stay_paused, fault);
	} else {
		status = plain_run(fd, verb, &request, options->json, out, fault);
	}
	close(fd);
	return status;
}
