/* Commands on the model: what each does, and each way in which it is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cluster/limits.h"
#include "lib/rng.h"
#include "tests/unit/commands.h"

enum {
	NONE = TB__REFUSAL__REFUSAL_NONE,
	NOT_FOUND = TB__REFUSAL__REFUSAL_NOT_FOUND,
	EXISTS = TB__REFUSAL__REFUSAL_EXISTS,
	CONFLICT = TB__REFUSAL__REFUSAL_CONFLICT,
	INVALID = TB__REFUSAL__REFUSAL_INVALID,
	LIMIT = TB__REFUSAL__REFUSAL_LIMIT,
};

static const Tb__SitePut__Mode CREATE = TB__SITE_PUT__MODE__MODE_CREATE;
static const Tb__SitePut__Mode REPLACE = TB__SITE_PUT__MODE__MODE_REPLACE;
static const Tb__SitePut__Mode UPSERT = TB__SITE_PUT__MODE__MODE_UPSERT;

static int setup(void **state)
{
	struct model *m = mem_alloc(sizeof(*m));

	model_open(m);
	*state = m;
	return model_init_cluster(m);
}

static int teardown(void **state)
{
	struct model *m = *state;

	store_close(m->s);
	free(m);
	return 0;
}

static uint64_t site_id(struct model *m, const char *name)
{
	Tb__Site *row;
	uint64_t id;

	assert_int_equal(store_site_find(m->s, name, &row), 0);
	id = row->id;
	tb__site__free_unpacked(row, NULL);
	return id;
}

static void test_first_whole(void **state)
{
	struct model *m = *state;

	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	assert_int_equal(model_put_site(m, "london-1", CREATE), EXISTS);
	assert_int_equal(model_put_site(m, "london-2", REPLACE), NOT_FOUND);
	assert_int_equal(model_put_site(m, "london 2", UPSERT), INVALID);
	assert_int_equal(model_grant(m, site_id(m, "london-1"), 0, 1, 1), NONE);
	assert_int_equal(model_grant(m, site_id(m, "london-1"), 0, 1, 1), CONFLICT);
	assert_int_equal(model_delete_site(m, "london-1"), NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_whole, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
