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

/* Long letters take turns with the rest of the loop. */
struct turns {
	struct mailbox box;
	uv_check_t check;
	unsigned count; /* of the loop */
	unsigned at[3]; /* when each letter was opened */
	unsigned opened;
};

struct long_letter {
	struct letter letter;
	struct turns *turns;
};

static void turns_pass(uv_check_t *check)
{
	((struct turns *)check->data)->count++;
}

static void turns_closed(struct mailbox *m)
{
	uv_close((uv_handle_t *)&list_entry(m, struct turns, box)->check, NULL);
}

static void long_open(struct letter *letter)
{
	struct turns *t = list_entry(letter, struct long_letter, letter)->turns;
	uint64_t end = uv_hrtime() + 30 * UINT64_C(1000000);

	t->at[t->opened++] = t->count;
	while (uv_hrtime() < end)
		;
	if (t->opened == 3)
		mailbox_close(&t->box, turns_closed);
}

static void test_long_letters(void **state)
{
	struct turns t = {0};
	struct long_letter letters[3];
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(mailbox_init(&t.box, &loop, 10), 0);
	uv_check_init(&loop, &t.check);
	t.check.data = &t;
	uv_check_start(&t.check, turns_pass);
	for (unsigned i = 0; i < 3; i++) {
		letters[i] = (struct long_letter){.letter.open = long_open, .turns = &t};
		assert_int_equal(mailbox_post(&t.box, &letters[i].letter), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(t.opened, 3);
	assert_true(t.at[0] < t.at[1] && t.at[1] < t.at[2]);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_close_inside),
		cmocka_unit_test(test_long_letters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
