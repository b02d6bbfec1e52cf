#include "witnessd/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/log.h"
#include "lib/mem.h"

/* Freed when both ends have closed. */
struct link {
	struct stream *ends[2]; /* NULL: closed */
	struct list of_set;
	uint64_t node;
	char serial[64]; /* of the other board's certificate */
	uint64_t issuer;
};

static struct stream **end_of(struct link *l, const struct stream *s)
{
	return &l->ends[l->ends[1] == s];
}

static struct stream *other_end(struct link *l, const struct stream *s)
{
	return l->ends[l->ends[0] == s];
}

static void link_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct stream *to = other_end(stream_arg(s), s);

	if (to && stream_write(to, bytes, len) > LINK_QUEUE_MAX)
		stream_pause(s);
}

static void link_drained(struct stream *s)
{
	struct stream *from = other_end(stream_arg(s), s);

	if (from)
		stream_resume(from);
}

static void link_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct link *l = stream_arg(s);
	struct stream *other = other_end(l, s);

	(void)end;
	(void)detail;
	*end_of(l, s) = NULL;
	if (other) {
		stream_resume(other); /* to throw away what it still says */
		stream_close(other);
	} else {
		list_remove(&l->of_set);
		free(l);
	}
}

static const struct stream_events link_events = {
	.data = link_data,
	.drained = link_drained,
	.closed = link_closed,
};

void links_check(struct list *links,
		 bool (*holds)(void *arg, uint64_t node, const char *serial, uint64_t issuer),
		 void *arg)
{
	list_for_each_safe (at, links) {
		struct link *l = list_entry(at, struct link, of_set);

		if (l->ends[0] == NULL || holds(arg, l->node, l->serial, l->issuer))
			continue;
		log_notice("link-ended",
			   "board %llu: its certificate no longer holds, or its CA ends",
			   (unsigned long long)l->node);
		stream_abort(l->ends[0]);
	}
}

int link_pump(struct stream *tls, struct list *links, uint64_t node, const struct tls_peer *peer,
	      int *ret_fd)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	struct link *l = mem_zalloc(sizeof(*l));
	list_init(&l->of_set);
	if (links != NULL)
		list_append(links, &l->of_set);
	l->node = node;
	snprintf(l->serial, sizeof(l->serial), "%s", peer->serial);
	l->issuer = peer->issuer;
	l->ends[0] = tls;
	l->ends[1] = stream_adopt(stream_group_of(tls), pair[0], &link_events, l);
	stream_set_events(tls, &link_events, l);
	stream_silence_limit(tls, LINK_SILENCE_MS);
	*ret_fd = pair[1];
	return 0;
}
