/* mailbox.c: letters behind a lock, and a uv_async_t to say that there are some.
 *
 * The lock is held while waking, so that no sender touches the async handle once it is closing.
 * It is never destroyed: it holds no resource, and a late sender may still want to hear
 * -ESHUTDOWN as long as the owner keeps the memory. */
#include "witnessd/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

enum { SLICE_US = 10000 };

static struct letter *letter_take(struct mailbox *m)
{
	struct letter *letter = NULL;

	pthread_mutex_lock(&m->lock);
	if (!list_empty(&m->letters)) {
		letter = list_entry(m->letters.next, struct letter, link);
		list_remove(&letter->link);
		m->count--;
	}
	pthread_mutex_unlock(&m->lock);
	return letter;
}

/* One by one, so that a letter which closes the mailbox finds the rest still in order. Letters
 * that come in meanwhile wait for the next turn of the loop: two mailboxes answering each other
 * must not starve the sockets. Neither must a storm: after SLICE_US the rest waits too, for raft's
 * heartbeats have the same loop. */
static void letters_open(uv_async_t *wake)
{
	struct mailbox *m = wake->data;

	pthread_mutex_lock(&m->lock);
	size_t batch = m->count;
	pthread_mutex_unlock(&m->lock);
	uint64_t end = uv_hrtime() + SLICE_US * UINT64_C(1000);
	while (batch-- > 0) {
		struct letter *letter = letter_take(m);
		if (!letter)
			return;
		letter->open(letter);
		if (uv_hrtime() >= end)
			break;
	}
	pthread_mutex_lock(&m->lock);
	if (m->count > 0 && !m->closed)
		uv_async_send(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

int mailbox_init(struct mailbox *m, uv_loop_t *loop, size_t limit)
{
	*m = (struct mailbox){.limit = limit};
	list_init(&m->letters);
	int rv = uv_async_init(loop, &m->wake, letters_open);
	if (rv < 0)
		return rv;
	m->wake.data = m;
	rv = -pthread_mutex_init(&m->lock, NULL);
	assert(rv == 0);
	return 0;
}

static int letter_put(struct mailbox *m, struct letter *letter, bool bounded)
{
	int rv = 0;

	pthread_mutex_lock(&m->lock);
	if (m->closed) {
		rv = -ESHUTDOWN;
	} else if (bounded && m->count >= m->limit) {
		rv = -EAGAIN;
	} else {
		list_append(&m->letters, &letter->link);
		m->count++;
		uv_async_send(&m->wake);
	}
	pthread_mutex_unlock(&m->lock);
	return rv;
}

int mailbox_post(struct mailbox *m, struct letter *letter)
{
	return letter_put(m, letter, true);
}

int mailbox_answer(struct mailbox *m, struct letter *letter)
{
	return letter_put(m, letter, false);
}

static void mailbox_closed(uv_handle_t *handle)
{
	struct mailbox *m = handle->data;

	if (m->on_close)
		m->on_close(m);
}

void mailbox_close(struct mailbox *m, void (*closed)(struct mailbox *m))
{
	pthread_mutex_lock(&m->lock);
	assert(!m->closed);
	m->closed = 1;
	pthread_mutex_unlock(&m->lock);
	for (struct letter *letter = letter_take(m); letter; letter = letter_take(m))
		letter->open(letter);
	m->on_close = closed;
	uv_close((uv_handle_t *)&m->wake, mailbox_closed);
}
