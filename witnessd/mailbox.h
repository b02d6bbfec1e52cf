/* mailbox.h: the only way from one thread's loop to another's.
 *
 * A letter is a job with its data: posted from any thread, opened once, in order, in the thread
 * of the mailbox's loop; many take turns with the loop's other work. The sender allocates it
 * (usually embedded in a bigger struct); the opener frees it or posts it back as the answer.
 * Bounded: a sender that outruns the reader gets -EAGAIN and keeps the letter. */
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <uv.h>

#include "lib/list.h"

struct letter {
	struct list link;
	void (*open)(struct letter *letter); /* in the receiver's thread */
};

struct mailbox {
	uv_async_t wake;
	pthread_mutex_t lock;
	struct list letters;
	size_t count;
	size_t limit;
	int closed;
	void (*on_close)(struct mailbox *m);
};

/* In the thread of `loop`, or before it runs. */
int mailbox_init(struct mailbox *m, uv_loop_t *loop, size_t limit);
/* Any thread. 0: the letter is the receiver's. -EAGAIN full, -ESHUTDOWN closed: still the sender's.
 */
int mailbox_post(struct mailbox *m, struct letter *letter);
/* The same past the limit, for answers to what was admitted already; only -ESHUTDOWN. */
int mailbox_answer(struct mailbox *m, struct letter *letter);
/* In the loop's thread. Letters still inside are opened first; then `closed` is called. */
void mailbox_close(struct mailbox *m, void (*closed)(struct mailbox *m));
