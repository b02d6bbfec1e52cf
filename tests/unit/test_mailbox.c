/* Letters between threads: order, bound, closing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "witnessd/mailbox.h"

enum { SENDERS = 3, LETTERS = 2000 };

struct reader {
	struct mailbox box;
	unsigned opened;
	unsigned next[SENDERS]; /* number expected from each sender */
	unsigned disorder;
	int closed;
};

struct note {
	struct letter letter;
	struct reader *reader;
	unsigned sender;
	unsigned number;
};

static void reader_closed(struct mailbox *m)
{
	list_entry(m, struct reader, box)->closed = 1;
}

static void note_open(struct letter *letter)
{
	struct note *n = list_entry(letter, struct note, letter);
	struct reader *r = n->reader;

	if (r->next[n->sender]++ != n->number)
		r->disorder++;
	free(n);
	if (++r->opened == SENDERS * LETTERS)
		mailbox_close(&r->box, reader_closed);
}

struct sender {
	pthread_t thread;
	struct reader *reader;
	unsigned id;
	unsigned refused;
};

static void *sender_run(void *arg)
{
	struct sender *s = arg;

	for (unsigned i = 0; i < LETTERS; i++) {
		struct note *n = mem_zalloc(sizeof(*n));

		*n = (struct note){.letter.open = note_open,
				   .reader = s->reader,
				   .sender = s->id,
				   .number = i};
		while (mailbox_post(&s->reader->box, &n->letter) == -EAGAIN) {
			s->refused++;
			sched_yield();
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct sender senders[SENDERS] = {0};
	struct reader r = {0};
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(mailbox_init(&r.box, &loop, 16), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){.reader = &r, .id = i};
		pthread_create(&senders[i].thread, NULL, sender_run, &senders[i]);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(senders[i].thread, NULL);
	assert_int_equal(r.opened, SENDERS * LETTERS);
	assert_int_equal(r.disorder, 0);
	assert_int_equal(r.closed, 1);
	assert_int_equal(uv_loop_close(&loop), 0);
}

struct mark {
	struct letter letter;
	struct mailbox *close; /* when opened; NULL: nothing */
	char **trace;
	char name;
};

static void nothing_closed(struct mailbox *m)
{
	(void)m;
}

static void mark_open(struct letter *letter)
{
	struct mark *m = list_entry(letter, struct mark, letter);

	*(*m->trace)++ = m->name;
	if (m->close)
		mailbox_close(m->close, nothing_closed);
}

/* A letter may close the box it came in; the ones behind it are still opened, in order. */
static void test_close_inside(void **state)
{
	char text[8] = "";
	char *at = text;
	struct mailbox box;
	struct mark a = {.letter.open = mark_open, .trace = &at, .name = 'a'};
	struct mark b = {.letter.open = mark_open, .trace = &at, .name = 'b', .close = &box};
	struct mark c = {.letter.open = mark_open, .trace = &at, .name = 'c'};
	struct mark d = {.letter.open = mark_open, .trace = &at, .name = 'd'};
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(mailbox_init(&box, &loop, 2), 0);
	assert_int_equal(mailbox_post(&box, &a.letter), 0);
	assert_int_equal(mailbox_post(&box, &b.letter), 0);
	assert_int_equal(mailbox_post(&box, &c.letter), -EAGAIN);
	assert_int_equal(mailbox_answer(&box, &c.letter), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_string_equal(text, "abc");
	assert_int_equal(mailbox_post(&box, &d.letter), -ESHUTDOWN);
	assert_int_equal(mailbox_answer(&box, &d.letter), -ESHUTDOWN);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_close_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
