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
#include "cluster/snapshot.h"
#include "lib/rng.h"
#include "tests/unit/commands.h"
#include "tests/unit/events.h"

enum {
	NONE = TB__REFUSAL__REFUSAL_NONE,
	NOT_FOUND = TB__REFUSAL__REFUSAL_NOT_FOUND,
	EXISTS = TB__REFUSAL__REFUSAL_EXISTS,
	CONFLICT = TB__REFUSAL__REFUSAL_CONFLICT,
	INVALID = TB__REFUSAL__REFUSAL_INVALID,
	LIMIT = TB__REFUSAL__REFUSAL_LIMIT,
	NOT_INITIALISED = TB__REFUSAL__REFUSAL_NOT_INITIALISED,
	INITIALISED = TB__REFUSAL__REFUSAL_INITIALISED,
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

/* Applies it and checks the answer: the refusal, its field, and that a refusal carries a sentence.
 */
static void expect(struct model *m, struct command *c, int refusal, const char *field)
{
	struct apply_result result;

	assert_int_equal(command_apply_to(m, c, &result), 0);
	assert_int_equal(result.count, 1);
	assert_int_equal(result.results[0]->refusal, refusal);
	assert_string_equal(result.results[0]->field, field);
	assert_int_equal(result.results[0]->message[0] == '\0', refusal == NONE);
	assert_int_equal(result.results[0]->index, m->index);
	if (refusal != NONE) {
		assert_int_equal(result.site_count + result.grant_count, 0);
		assert_false(result.nodes_changed || result.cluster_changed ||
			     result.certificates_changed);
	}
	apply_result_free(&result);
}

static uint64_t last_event(struct model *m)
{
	uint64_t first;
	uint64_t last;

	assert_int_equal(store_event_range(m->s, &first, &last), 0);
	return last;
}

/* --- the envelope ---------------------------------------------------------------------------- */

static void test_envelope(void **state)
{
	struct model *m = *state;
	Tb__ClusterSet op = TB__CLUSTER_SET__INIT;
	struct command c;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_SET;
	c.c.cluster_set = &op;
	c.c.id.len = 15;
	expect(m, &c, INVALID, "id");
	c.c.id.len = 0;
	expect(m, &c, INVALID, "id");
	c.c.id.len = 16;
	c.c.actor = TEXT("root\nforged");
	expect(m, &c, INVALID, "actor");
}

static void test_undecodable(void **state)
{
	static const uint8_t garbage[] = {0xff, 0xff, 0xff};
	struct model *m = *state;
	Tb__ClusterSet op = TB__CLUSTER_SET__INIT;
	struct apply_result result;
	struct command known;
	struct command unknown;
	Tb__Command *list[] = {&known.c, &unknown.c};
	struct buf packed = {0};
	char before[65];
	char after[65];
	uint64_t applied;

	/* The second command is of a later release: the first must not be done either. */
	op.auto_register = true;
	command_start(m, &known);
	known.c.op_case = TB__COMMAND__OP_CLUSTER_SET;
	known.c.cluster_set = &op;
	command_start(m, &unknown);
	entry_pack(list, 2, &packed);
	assert_false(command_known(&unknown.c));
	assert_true(command_known(&known.c));
	assert_int_equal(store_digest(m->s, before), 0);
	assert_int_equal(apply_entry(m->s, 50, packed.data, packed.len, &result), -EBADMSG);
	assert_int_equal(apply_entry(m->s, 50, garbage, sizeof(garbage), &result), -EBADMSG);
	assert_int_equal(store_digest(m->s, after), 0);
	assert_string_equal(before, after);
	assert_int_equal(store_applied(m->s, &applied), 0);
	assert_int_equal(applied, m->index);
	/* An entry without commands only moves the index. */
	assert_int_equal(apply_entry(m->s, 50, NULL, 0, &result), 0);
	apply_result_free(&result);
	assert_int_equal(store_applied(m->s, &applied), 0);
	assert_int_equal(applied, 50);
	buf_free(&packed);
}

static void test_same_id_again(void **state)
{
	struct model *m = *state;
	Tb__SitePut op = TB__SITE_PUT__INIT;
	Tb__Site site = TB__SITE__INIT;
	Tb__Site *sites[] = {&site};
	struct command c;
	Tb__Command *twice[] = {&c.c, &c.c};
	struct apply_result result;
	struct buf packed = {0};
	uint64_t events;

	site.name = TEXT("london-1");
	op.sites = sites;
	op.n_sites = 1;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_PUT;
	c.c.site_put = &op;
	entry_pack(twice, 2, &packed);
	assert_int_equal(apply_entry(m->s, 10, packed.data, packed.len, &result), 0);
	assert_int_equal(result.results[0]->created, 1);
	assert_int_equal(result.results[1]->created, 1); /* the same answer, not "exists" */
	assert_int_equal(result.site_count, 1);
	apply_result_free(&result);
	events = last_event(m);
	assert_int_equal(apply_entry(m->s, 11, packed.data, packed.len, &result), 0);
	assert_int_equal(result.results[1]->created, 1);
	assert_int_equal(result.results[1]->index, 10);
	assert_int_equal(result.site_count, 0);
	apply_result_free(&result);
	assert_int_equal(last_event(m), events);

	/* A refusal is remembered too, even when its cause is gone. */
	m->index = 11;
	command_renew(m, &c);
	expect(m, &c, EXISTS, "sites[0].name");
	assert_int_equal(model_delete_site(m, "london-1"), NONE);
	assert_int_equal(command_refusal(m, &c), EXISTS);
	buf_free(&packed);
}

/* --- cluster --------------------------------------------------------------------------------- */

static void test_before_init(void **state)
{
	struct model m;

	(void)state;
	model_open(&m);
	assert_int_equal(model_put_site(&m, "a", CREATE), TB__REFUSAL__REFUSAL_NOT_INITIALISED);
	assert_int_equal(model_init_cluster(&m), NONE);
	expect_event(&m, "cluster.created|root@test||b1||cluster c1 created on board b1");
	assert_int_equal(model_init_cluster(&m), TB__REFUSAL__REFUSAL_INITIALISED);
	store_close(m.s);
}

static void test_init_checks(void **state)
{
	static const struct {
		const char *id;
		const char *name;
		const char *node;
		const char *address;
		const char *subject;
		const char *field;
	} cases[] = {
		{"0123", "c1", "b1", "h:1", "b1", "cluster.id"},
		{"0123456789abcdef0123456789abcdef", "c 1", "b1", "h:1", "b1", "cluster.name"},
		{"0123456789abcdef0123456789abcdef", "c1", "-b1", "h:1", "b1", "node.name"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", "h", "b1", "node.address"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", "h:0", "b1", "node.address"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", ":7", "b1", "node.address"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", "h h:7", "b1", "node.address"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", "h:1", "b2",
		 "certificate.subject"},
		{"0123456789abcdef0123456789abcdef", "c1", "b1", "h:1", "b1", ""},
	};
	struct model m;

	(void)state;
	model_open(&m);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__ClusterInit op = TB__CLUSTER_INIT__INIT;
		Tb__Cluster cluster = TB__CLUSTER__INIT;
		Tb__Secrets secrets = TB__SECRETS__INIT;
		Tb__Node node = TB__NODE__INIT;
		Tb__Certificate certificate = TB__CERTIFICATE__INIT;
		struct command c;

		command_start(&m, &c);
		c.c.op_case = TB__COMMAND__OP_CLUSTER_INIT;
		c.c.cluster_init = &op;
		expect(&m, &c, INVALID, "cluster");
		cluster.id = TEXT(cases[i].id);
		cluster.name = TEXT(cases[i].name);
		node.id = 17;
		node.name = TEXT(cases[i].node);
		node.address = TEXT(cases[i].address);
		certificate.serial = TEXT(NODE_CERTIFICATE);
		certificate.kind = TEXT("node");
		certificate.subject = TEXT(cases[i].subject);
		op.cluster = &cluster;
		op.secrets = &secrets;
		op.node = &node;
		op.certificate = &certificate;
		command_renew(&m, &c);
		expect(&m, &c, cases[i].field[0] != '\0' ? INVALID : NONE, cases[i].field);
	}
	Tb__Node *row;

	assert_int_equal(store_node_get(m.s, 17, &row), 0);
	assert_int_equal(row->role, TB__NODE_ROLE__NODE_ROLE_VOTER);
	assert_int_equal(row->joined_ms, TEST_TIME);
	tb__node__free_unpacked(row, NULL);
	store_close(m.s);
}

static void test_cluster_set(void **state)
{
	struct model *m = *state;
	Tb__ClusterSet op = TB__CLUSTER_SET__INIT;
	struct apply_result result;
	struct command c;

	for (int i = 0; i < 2; i++) {
		command_start(m, &c);
		c.c.op_case = TB__COMMAND__OP_CLUSTER_SET;
		c.c.cluster_set = &op;
		op.auto_register = true;
		assert_int_equal(command_apply_to(m, &c, &result), 0);
		assert_int_equal(result.results[0]->changed, i == 0);
		assert_int_equal(result.results[0]->unchanged, i == 1);
		assert_int_equal(result.cluster_changed, i == 0);
		apply_result_free(&result);
	}
	expect_event(m, "cluster.changed|root@test||||unknown sites are now created when they "
			"first attach");
}

/* --- tokens ---------------------------------------------------------------------------------- */

#define TOKEN "00000000000000aa"

static uint8_t secret[32] = {1, 2, 3};

static void token_make(Tb__Token *token, Tb__Role role)
{
	tb__token__init(token);
	token->id = TEXT(TOKEN);
	token->role = role;
	token->secret_sha256 = (ProtobufCBinaryData){.data = secret, .len = sizeof(secret)};
}

static int token_add(struct model *m, Tb__Token *token)
{
	Tb__TokenAdd op = TB__TOKEN_ADD__INIT;
	struct command c;

	op.token = token;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_TOKEN_ADD;
	c.c.token_add = &op;
	return command_refusal(m, &c);
}

static void test_token_checks(void **state)
{
	static const struct {
		const char *id;
		const char *name;
		const char *site;
		size_t secret_len;
		int64_t expires_ms;
		Tb__Role role;
		int refusal;
		const char *field;
	} cases[] = {
		{"aa", "", "", 32, 0, TB__ROLE__ROLE_NODE, 4, "token.id"},
		{"00000000000000AA", "", "", 32, 0, TB__ROLE__ROLE_NODE, 4, "token.id"},
		{TOKEN, "a b", "", 32, 0, TB__ROLE__ROLE_NODE, 4, "token.name"},
		{TOKEN, "", "", 31, 0, TB__ROLE__ROLE_NODE, 4, "token.secretSha256"},
		{TOKEN, "", "", 32, 0, TB__ROLE__ROLE_NONE, 4, "token.role"},
		{TOKEN, "", "", 32, 0, (Tb__Role)77, 4, "token.role"},
		{TOKEN, "", "", 32, TEST_TIME, TB__ROLE__ROLE_NODE, 4, "token.expiresMs"},
		{TOKEN, "", "x", 32, 0, TB__ROLE__ROLE_ADMIN, 4, "token.site"},
		{TOKEN, "", "", 32, 0, TB__ROLE__ROLE_SITE, 4, "token.site"},
		{TOKEN, "", "nowhere", 32, 0, TB__ROLE__ROLE_SITE, 1, "token.site"},
		{TOKEN, "ops", "", 32, TEST_TIME + 1, TB__ROLE__ROLE_NODE, 0, ""},
		{TOKEN, "ops", "", 32, 0, TB__ROLE__ROLE_NODE, 2, "token.id"},
	};
	struct model *m = *state;
	Tb__Token *row;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__TokenAdd op = TB__TOKEN_ADD__INIT;
		Tb__Token token;
		struct command c;

		token_make(&token, cases[i].role);
		token.id = TEXT(cases[i].id);
		token.name = TEXT(cases[i].name);
		token.site = TEXT(cases[i].site);
		token.secret_sha256.len = cases[i].secret_len;
		token.expires_ms = cases[i].expires_ms;
		token.uses = 5; /* what the cluster keeps is not the client's to say */
		token.revoked = true;
		op.token = &token;
		command_start(m, &c);
		c.c.op_case = TB__COMMAND__OP_TOKEN_ADD;
		c.c.token_add = &op;
		expect(m, &c, cases[i].refusal, cases[i].field);
	}
	assert_int_equal(store_token_get(m->s, TOKEN, &row), 0);
	assert_int_equal(row->uses, 0);
	assert_false(row->revoked);
	assert_int_equal(row->created_ms, TEST_TIME);
	assert_string_equal(row->created_by, "root@test");
	tb__token__free_unpacked(row, NULL);
	expect_event(m, "token.created|root@test||||token " TOKEN " ops of role node created");
}

static int token_revoke(struct model *m, const char *id)
{
	Tb__TokenRevoke op = TB__TOKEN_REVOKE__INIT;
	struct command c;

	op.id = TEXT(id);
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_TOKEN_REVOKE;
	c.c.token_revoke = &op;
	return command_refusal(m, &c);
}

/* Tokens that admit nobody any more make room; valid ones never do. */
static void test_token_limit(void **state)
{
	struct model *m = *state;
	Tb__Token token;
	uint64_t count;
	char id[20];

	for (int i = 0; i < LIMIT_TOKENS; i++) {
		token_make(&token, TB__ROLE__ROLE_NODE);
		snprintf(id, sizeof(id), "%016x", i);
		token.id = id;
		assert_int_equal(token_add(m, &token), NONE);
	}
	token_make(&token, TB__ROLE__ROLE_NODE);
	token.id = TEXT("00000000ffffffff");
	assert_int_equal(token_add(m, &token), LIMIT);
	assert_int_equal(token_revoke(m, "0000000000000007"), NONE);
	assert_int_equal(token_add(m, &token), NONE);
	assert_int_equal(store_count(m->s, "token", &count), 0);
	assert_int_equal(count, LIMIT_TOKENS);
	assert_int_equal(token_revoke(m, "0000000000000007"), NOT_FOUND);
}

/* --- boards ---------------------------------------------------------------------------------- */

static void node_add_make(Tb__NodeAdd *op, Tb__Node *node, const char *name)
{
	tb__node_add__init(op);
	tb__node__init(node);
	node->name = TEXT(name);
	node->address = TEXT("[2001:db8::2]:7443");
	op->node = node;
	op->token_id = TEXT(TOKEN);
	op->token_secret_sha256 = (ProtobufCBinaryData){.data = secret, .len = sizeof(secret)};
}

static int node_add(struct model *m, Tb__NodeAdd *op, int64_t time_ms)
{
	struct command c;

	command_start(m, &c);
	c.c.time_ms = time_ms;
	c.c.op_case = TB__COMMAND__OP_NODE_ADD;
	c.c.node_add = op;
	return command_refusal(m, &c);
}

static void test_join_tokens(void **state)
{
	struct model *m = *state;
	uint8_t wrong[32] = {1, 2, 3};
	Tb__NodeAdd op;
	Tb__Node node;
	Tb__Token token;
	Tb__Token *row;

	token_make(&token, TB__ROLE__ROLE_NODE);
	token.max_uses = 1;
	token.expires_ms = TEST_TIME + 100;
	node_add_make(&op, &node, "b2");
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN);
	assert_int_equal(token_add(m, &token), NONE);
	wrong[31] = 1;
	op.token_secret_sha256.data = wrong;
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN);
	op.token_secret_sha256.data = secret;
	op.token_secret_sha256.len = 31;
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN);
	op.token_secret_sha256.len = 0;
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN);
	op.token_secret_sha256.len = 32;
	assert_int_equal(node_add(m, &op, TEST_TIME + 100), TB__REFUSAL__REFUSAL_TOKEN_EXPIRED);

	node.name = TEXT("b1"); /* refused: the use must not count */
	assert_int_equal(node_add(m, &op, TEST_TIME), EXISTS);
	assert_int_equal(store_token_get(m->s, TOKEN, &row), 0);
	assert_int_equal(row->uses, 0);
	tb__token__free_unpacked(row, NULL);

	node.name = TEXT("b2");
	assert_int_equal(node_add(m, &op, TEST_TIME + 99), NONE);
	expect_event(m, "node.added|root@test||b2||board b2 admitted with id 2 by token " TOKEN);
	node.name = TEXT("b3");
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_USED);
	assert_int_equal(token_revoke(m, TOKEN), NONE);
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_REVOKED);
	expect_event(m, "token.revoked|root@test||||token " TOKEN " revoked");
	token.id = TEXT("00000000000000bb");
	token.role = TB__ROLE__ROLE_ADMIN;
	op.token_id = token.id;
	assert_int_equal(token_add(m, &token), NONE);
	assert_int_equal(node_add(m, &op, TEST_TIME), TB__REFUSAL__REFUSAL_TOKEN_ROLE);
}

static int node_remove(struct model *m, uint64_t id)
{
	Tb__NodeRemove op = TB__NODE_REMOVE__INIT;
	struct command c;

	op.id = id;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_REMOVE;
	c.c.node_remove = &op;
	return command_refusal(m, &c);
}

static int revoked(struct model *m, const char *serial)
{
	Tb__Certificate *row;
	int value;

	assert_int_equal(store_certificate_get(m->s, serial, &row), 0);
	value = row->revoked;
	tb__certificate__free_unpacked(row, NULL);
	return value;
}

static void test_nodes(void **state)
{
	static const char serial[] = "ffffffffffffffffffffffffffffffff";
	struct model *m = *state;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	Tb__NodeAdd op;
	Tb__Node node;
	Tb__Token token;
	char name[8];

	token_make(&token, TB__ROLE__ROLE_NODE);
	assert_int_equal(token_add(m, &token), NONE);
	node_add_make(&op, &node, "b2");
	certificate.serial = TEXT(serial);
	certificate.kind = TEXT("node");
	certificate.subject = TEXT("b3"); /* not the board's name */
	op.certificate = &certificate;
	assert_int_equal(node_add(m, &op, TEST_TIME), INVALID);
	certificate.subject = TEXT("b2");
	node.id = 1; /* used */
	assert_int_equal(node_add(m, &op, TEST_TIME), EXISTS);
	node.id = UINT64_MAX;
	assert_int_equal(node_add(m, &op, TEST_TIME), INVALID);
	node.id = 2;
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	node.id = 0;
	op.certificate = NULL;
	for (int i = 3; i <= LIMIT_NODES + 1; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		node.name = name;
		assert_int_equal(node_add(m, &op, TEST_TIME), i <= LIMIT_NODES ? NONE : LIMIT);
	}
	Tb__NodeSet promote = TB__NODE_SET__INIT;
	struct command c;

	promote.id = 2;
	promote.role = TB__NODE_ROLE__NODE_ROLE_VOTER;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_SET;
	c.c.node_set = &promote;
	expect(m, &c, NONE, "");
	expect_event(m, "node.joined|root@test||b2||board b2 is a voter");
	assert_int_equal(node_remove(m, 99), NOT_FOUND);
	assert_int_equal(revoked(m, serial), 0);
	assert_int_equal(node_remove(m, 2), NONE);
	assert_int_equal(revoked(m, serial), 1);
	assert_int_equal(revoked(m, NODE_CERTIFICATE), 0);
	expect_event(m, "node.removed|root@test||b2||board b2 removed from the cluster");
	for (uint64_t id = 3; id <= LIMIT_NODES; id++)
		assert_int_equal(node_remove(m, id), NONE);
	assert_int_equal(node_remove(m, 1), INVALID); /* the last one */
	node.id = 0;
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	Tb__Node *row;

	assert_int_equal(store_node_find(m->s, name, &row), 0);
	assert_int_equal(row->id, LIMIT_NODES + 1); /* ids are not used again */
	assert_int_equal(row->role, TB__NODE_ROLE__NODE_ROLE_JOINING);
	tb__node__free_unpacked(row, NULL);
}

static void test_node_set(void **state)
{
	struct model *m = *state;
	Tb__NodeSet op = TB__NODE_SET__INIT;
	Tb__Node *row;
	struct command c;
	uint64_t events;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_SET;
	c.c.node_set = &op;
	op.id = 9;
	expect(m, &c, NOT_FOUND, "id");
	op.id = 1;
	op.address = TEXT("nonsense");
	command_renew(m, &c);
	expect(m, &c, INVALID, "node.address");
	op.address = TEXT("192.0.2.9:7443");
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	expect_event(m, "node.changed|root@test||b1||board b1 changed: 192.0.2.9:7443, version ");
	assert_int_equal(store_node_get(m->s, 1, &row), 0);
	assert_string_equal(row->address, "192.0.2.9:7443");
	assert_int_equal(row->role, TB__NODE_ROLE__NODE_ROLE_VOTER); /* not given: stays */
	tb__node__free_unpacked(row, NULL);
	events = last_event(m);
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	assert_int_equal(last_event(m), events); /* nothing changed */
}

static void test_node_replace(void **state)
{
	static const char serial[] = "ffffffffffffffffffffffffffffffff";
	struct model *m = *state;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	Tb__NodeAdd op;
	Tb__Node node;
	Tb__Token token;
	Tb__Node *row;

	token_make(&token, TB__ROLE__ROLE_NODE);
	assert_int_equal(token_add(m, &token), NONE);
	node_add_make(&op, &node, "b2");
	certificate.serial = TEXT(serial);
	certificate.kind = TEXT("node");
	certificate.subject = TEXT("b2");
	op.certificate = &certificate;
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	/* Who may get such a token. */
	token.id = TEXT("00000000000000ca");
	token.replaces = 9;
	assert_int_equal(token_add(m, &token), NOT_FOUND);
	token.replaces = 2;
	token.role = TB__ROLE__ROLE_VIEWER;
	assert_int_equal(token_add(m, &token), INVALID);
	token.role = TB__ROLE__ROLE_NODE;
	assert_int_equal(token_add(m, &token), NONE);
	/* The new board comes with a name of its own, even one that is taken, and the old address.
	 */
	op.certificate = NULL;
	op.token_id = token.id;
	node.name = TEXT("b1");
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	expect_event(m,
		     "node.replaced|root@test||b2||board b2 (id 2) is replaced by a new board with "
		     "id 3 by token 00000000000000ca");
	assert_int_equal(revoked(m, serial), 1);
	assert_int_equal(store_node_get(m->s, 2, &row), -ENOENT);
	assert_int_equal(store_node_find(m->s, "b2", &row), 0);
	assert_int_equal(row->id, 3);
	assert_int_equal(row->role, TB__NODE_ROLE__NODE_ROLE_JOINING);
	tb__node__free_unpacked(row, NULL);
	/* The place is taken, or was given up: the next one is a new board like any other. */
	token.id = TEXT("00000000000000cb");
	token.replaces = 3;
	assert_int_equal(token_add(m, &token), NONE);
	assert_int_equal(node_remove(m, 3), NONE);
	op.token_id = token.id;
	node.name = TEXT("b9");
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	expect_event(m, "node.added|root@test||b9||board b9 admitted with id 4 by token "
			"00000000000000cb");
}

static void level_set(struct model *m, uint32_t level)
{
	Tb__ClusterLevel op = TB__CLUSTER_LEVEL__INIT;
	struct command c;

	op.level = level;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_LEVEL;
	c.c.cluster_level = &op;
	assert_int_equal(command_refusal(m, &c), NONE);
}

/* A board that is back is not put out by a token of when it was dead. */
static void test_node_replace_unlooked(void **state)
{
	struct model *m = *state;
	Tb__NodeAdd op;
	Tb__Node node;
	Tb__Token token;
	Tb__Token *used;
	Tb__Node *row;

	level_set(m, LEVEL_HERE);
	token_make(&token, TB__ROLE__ROLE_NODE);
	assert_int_equal(token_add(m, &token), NONE);
	node_add_make(&op, &node, "b2");
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	token.id = TEXT("00000000000000ca");
	token.max_uses = 1;
	token.replaces = 2;
	assert_int_equal(token_add(m, &token), NONE);
	op.token_id = token.id;
	assert_int_equal(node_add(m, &op, TEST_TIME), CONFLICT);
	op.dead = 1; /* another was looked for */
	assert_int_equal(node_add(m, &op, TEST_TIME), CONFLICT);
	assert_int_equal(store_node_get(m->s, 2, &row), 0);
	tb__node__free_unpacked(row, NULL);
	assert_int_equal(store_token_get(m->s, token.id, &used), 0);
	assert_int_equal(used->uses, 0); /* it still serves */
	tb__token__free_unpacked(used, NULL);
	op.dead = 2;
	assert_int_equal(node_add(m, &op, TEST_TIME), NONE);
	assert_int_equal(store_node_get(m->s, 2, &row), -ENOENT);
}

static int node_drain(struct model *m, uint64_t id, Tb__Drain drain)
{
	Tb__NodeDrain op = TB__NODE_DRAIN__INIT;
	struct command c;

	op.id = id;
	op.drain = drain;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_DRAIN;
	c.c.node_drain = &op;
	return command_refusal(m, &c);
}

static void test_node_drain(void **state)
{
	struct model *m = *state;
	Tb__NodeAdd add;
	Tb__Node node;
	Tb__Token token;
	Tb__NodeSet promote = TB__NODE_SET__INIT;
	Tb__Node *row;
	struct command c;
	uint64_t events;

	assert_int_equal(node_drain(m, 1, TB__DRAIN__DRAIN_GENTLE), CONFLICT); /* nobody else */
	token_make(&token, TB__ROLE__ROLE_NODE);
	assert_int_equal(token_add(m, &token), NONE);
	node_add_make(&add, &node, "b2");
	assert_int_equal(node_add(m, &add, TEST_TIME), NONE);
	/* A board that only joins serves nobody. */
	assert_int_equal(node_drain(m, 1, TB__DRAIN__DRAIN_GENTLE), CONFLICT);
	promote.id = 2;
	promote.role = TB__NODE_ROLE__NODE_ROLE_VOTER;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_SET;
	c.c.node_set = &promote;
	expect(m, &c, NONE, "");
	assert_int_equal(node_drain(m, 9, TB__DRAIN__DRAIN_GENTLE), NOT_FOUND);
	assert_int_equal(node_drain(m, 1, (Tb__Drain)3), INVALID);
	assert_int_equal(node_drain(m, 1, TB__DRAIN__DRAIN_GENTLE), NONE);
	expect_event(m,
		     "node.drained|root@test||b1||board b1 is drained: its site nodes are sent to "
		     "the other boards");
	assert_int_equal(store_node_get(m->s, 1, &row), 0);
	assert_int_equal(row->drain, TB__DRAIN__DRAIN_GENTLE);
	assert_int_equal(row->role, TB__NODE_ROLE__NODE_ROLE_VOTER);
	tb__node__free_unpacked(row, NULL);
	/* NodeSet leaves it as it is. */
	promote.id = 1;
	promote.version = TEXT("9");
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	assert_int_equal(store_node_get(m->s, 1, &row), 0);
	assert_int_equal(row->drain, TB__DRAIN__DRAIN_GENTLE);
	tb__node__free_unpacked(row, NULL);
	assert_int_equal(node_drain(m, 2, TB__DRAIN__DRAIN_NOW),
			 CONFLICT); /* the last that serves */
	assert_int_equal(node_remove(m, 2), CONFLICT);
	events = last_event(m);
	assert_int_equal(node_drain(m, 1, TB__DRAIN__DRAIN_GENTLE), NONE);
	assert_int_equal(last_event(m), events); /* nothing changed */
	assert_int_equal(node_drain(m, 1, TB__DRAIN__DRAIN_OFF), NONE);
	expect_event(m, "node.undrained|root@test||b1||board b1 serves sites again");
}

/* --- a new history --------------------------------------------------------------------------- */

enum { RESTORE_ROWS = 64 };

struct restore {
	Tb__ClusterRestore op;
	Tb__ClusterRestore__Row rows[RESTORE_ROWS];
	Tb__ClusterRestore__Row *pointers[RESTORE_ROWS];
	Tb__ClusterRestore__Final final;
	Tb__Node node;
	Tb__Certificate certificate;
};

/* The rows of `old` that a restore takes, as history.c does it. */
static void restore_make(struct restore *r, struct snapshot_reader reader, Tb__Cluster *cluster,
			 Tb__Secrets *secrets)
{
	struct snapshot_record record;

	memset(r, 0, sizeof(*r));
	tb__cluster_restore__init(&r->op);
	r->op.rows = r->pointers;
	while (snapshot_next(&reader, &record) > 0) {
		if (record.row < TB__SNAPSHOT__RECORD__ROW_TOKEN ||
		    record.row == TB__SNAPSHOT__RECORD__ROW_REQUEST)
			continue;
		assert_true(r->op.n_rows < RESTORE_ROWS);
		tb__cluster_restore__row__init(&r->rows[r->op.n_rows]);
		r->rows[r->op.n_rows].row = record.row;
		r->rows[r->op.n_rows].body.data = (uint8_t *)(uintptr_t)record.body;
		r->rows[r->op.n_rows].body.len = record.len;
		r->pointers[r->op.n_rows] = &r->rows[r->op.n_rows];
		r->op.n_rows++;
	}
	tb__cluster_restore__final__init(&r->final);
	r->final.cluster = cluster;
	r->final.secrets = secrets;
	r->final.hold_ms = 20000;
	r->final.source = TEXT("the backup");
	tb__node__init(&r->node);
	r->node.id = 2;
	r->node.name = TEXT("b1"); /* the name of an old board is free */
	r->node.address = TEXT("192.0.2.7:7443");
	tb__certificate__init(&r->certificate);
	r->certificate.serial = TEXT("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
	r->certificate.kind = TEXT("node");
	r->certificate.subject = TEXT("b1");
	r->certificate.not_after_ms = TEST_TIME * 10;
	r->final.node = &r->node;
	r->final.certificate = &r->certificate;
}

static int restore_send(struct model *m, Tb__ClusterRestore *op, int64_t time_ms)
{
	struct command c;

	command_start(m, &c);
	c.c.time_ms = time_ms;
	c.c.op_case = TB__COMMAND__OP_CLUSTER_RESTORE;
	c.c.cluster_restore = op;
	return command_refusal(m, &c);
}

static int model_lease(struct model *m, uint64_t site_id, uint64_t epoch, uint32_t node)
{
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__GrantSet op = TB__GRANT_SET__INIT;
	struct command c;

	grant.site_id = site_id;
	grant.epoch = epoch;
	grant.nodes = &node;
	grant.n_nodes = 1;
	grant.lease = true;
	grant.generation = 6;
	op.grant = &grant;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_GRANT_SET;
	c.c.grant_set = &op;
	return command_refusal(m, &c);
}

static uint64_t epoch_of(struct model *m, const char *name, uint32_t *ret_node)
{
	Tb__Site *site;
	Tb__Grant *grant;
	uint64_t epoch;

	assert_int_equal(store_site_find(m->s, name, &site), 0);
	assert_int_equal(store_grant_get(m->s, site->id, &grant), 0);
	epoch = grant->epoch;
	*ret_node = grant->n_nodes > 0 ? grant->nodes[0] : 0;
	/* No ring: whatever the nodes report, it is decided and committed anew. */
	assert_true(grant->ring == NULL || grant->ring->seq == 0);
	tb__grant__free_unpacked(grant, NULL);
	tb__site__free_unpacked(site, NULL);
	return epoch;
}

static void test_restore(void **state)
{
	const int64_t now = INT64_C(1800000000000);
	const uint64_t floor = (uint64_t)now << 20;
	struct model *old = *state;
	struct model m;
	struct restore r;
	struct buf snapshot = {0};
	struct snapshot_reader reader;
	const char *problem;
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;
	Tb__Node *row;
	struct command c;
	Tb__ClusterSettle settle = TB__CLUSTER_SETTLE__INIT;
	Tb__Grant *grant;
	uint32_t node;
	size_t rows;

	assert_int_equal(model_put_site(old, "a", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	assert_int_equal(model_put_site(old, "b", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	assert_int_equal(model_put_site(old, "c", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	assert_int_equal(model_grant(old, 1, 0, 1, 7), NONE);
	assert_int_equal(model_grant(old, 2, 0, floor + 5, 8), NONE); /* of a clock ahead */
	assert_int_equal(model_lease(old, 3, 4, 9), NONE);
	assert_int_equal(store_snapshot(old->s, &snapshot), 0);
	assert_int_equal(snapshot_open(snapshot.data, snapshot.len, &reader, &problem), 0);
	assert_int_equal(store_cluster_get(old->s, &cluster), 0);
	assert_int_equal(store_secrets_get(old->s, &secrets), 0);
	restore_make(&r, reader, cluster, secrets);
	/* A cluster that is there is not overwritten. */
	assert_int_equal(restore_send(old, &r.op, now), INITIALISED);
	model_open(&m);
	m.id = 1000;
	assert_int_equal(restore_send(&m, &r.op, now), NONE);
	/* Until the last entry there is no cluster. */
	assert_int_equal(model_put_site(&m, "d", TB__SITE_PUT__MODE__MODE_CREATE), NOT_INITIALISED);
	rows = r.op.n_rows;
	r.op.n_rows = 1;
	r.rows[0].row = TB__SNAPSHOT__RECORD__ROW_NODE; /* boards do not come back */
	assert_int_equal(restore_send(&m, &r.op, now), INVALID);
	assert_true(rows > 1);
	r.op.n_rows = 0;
	r.op.final = &r.final;
	r.node.id = 1; /* of an old board */
	assert_int_equal(restore_send(&m, &r.op, now), EXISTS);
	r.node.id = 2;
	assert_int_equal(restore_send(&m, &r.op, now), NONE);
	expect_event(&m,
		     "cluster.restored|root@test||b1||history 1 of cluster c1 begins on board b1, "
		     "from the backup");
	assert_int_equal(epoch_of(&m, "a", &node), floor);
	assert_int_equal(node, 7);
	assert_int_equal(epoch_of(&m, "b", &node), floor + 6);
	/* Who had a lease goes before others when it is given anew, at an epoch that nobody holds.
	 */
	assert_int_equal(epoch_of(&m, "c", &node), floor);
	assert_int_equal(node, 9);
	assert_int_equal(store_grant_get(m.s, 3, &grant), 0);
	assert_true(grant->lease);
	assert_int_equal(grant->generation, 6);
	tb__grant__free_unpacked(grant, NULL);
	assert_int_equal(revoked(&m, NODE_CERTIFICATE), 1);
	assert_int_equal(revoked(&m, "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"), 0);
	assert_int_equal(store_node_get(m.s, 1, &row), -ENOENT);
	/* A site made later, maybe of a name that was used after the backup, begins above as well.
	 */
	assert_int_equal(model_put_site(&m, "new", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	assert_true(epoch_of(&m, "new", &node) >= floor);
	/* Votes are held back until that is over. */
	tb__cluster__free_unpacked(cluster, NULL);
	assert_int_equal(store_cluster_get(m.s, &cluster), 0);
	assert_int_equal(cluster->hold_ms, 20000);
	command_start(&m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_SETTLE;
	c.c.cluster_settle = &settle;
	expect(&m, &c, NONE, "");
	tb__cluster__free_unpacked(cluster, NULL);
	assert_int_equal(store_cluster_get(m.s, &cluster), 0);
	assert_int_equal(cluster->hold_ms, 0);
	assert_int_equal(cluster->history, 1);
	tb__cluster__free_unpacked(cluster, NULL);
	tb__secrets__free_unpacked(secrets, NULL);
	store_close(m.s);
	buf_free(&snapshot);
}

/* --- tenants --------------------------------------------------------------------------------- */

static int tenant_put(struct model *m, const char *by, const char *name, const char *tenant,
		      Tb__SitePut__Mode mode)
{
	Tb__SitePut op = TB__SITE_PUT__INIT;
	Tb__Site site = TB__SITE__INIT;
	Tb__Site__LabelsEntry label = TB__SITE__LABELS_ENTRY__INIT;
	Tb__Site__LabelsEntry *labels[] = {&label};
	Tb__Site *sites[] = {&site};
	struct command c;

	label.key = TEXT("tenant");
	label.value = TEXT(tenant);
	site.name = TEXT(name);
	site.labels = labels;
	site.n_labels = tenant[0] != '\0';
	op.sites = sites;
	op.n_sites = 1;
	op.mode = mode;
	command_start(m, &c);
	c.c.tenant = TEXT(by);
	c.c.op_case = TB__COMMAND__OP_SITE_PUT;
	c.c.site_put = &op;
	return command_refusal(m, &c);
}

static int tenant_delete(struct model *m, const char *by, const char *name)
{
	Tb__SiteDelete op = TB__SITE_DELETE__INIT;
	char *names[] = {TEXT(name)};
	struct command c;

	op.names = names;
	op.n_names = 1;
	command_start(m, &c);
	c.c.tenant = TEXT(by);
	c.c.op_case = TB__COMMAND__OP_SITE_DELETE;
	c.c.site_delete = &op;
	return command_refusal(m, &c);
}

static int tenant_quota(struct model *m, const char *tenant, uint32_t max_sites)
{
	Tb__TenantSet op = TB__TENANT_SET__INIT;
	struct command c;

	op.tenant = TEXT(tenant);
	op.max_sites = max_sites;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_TENANT_SET;
	c.c.tenant_set = &op;
	return command_refusal(m, &c);
}

static void test_tenants(void **state)
{
	struct model *m = *state;

	assert_int_equal(tenant_put(m, "red", "r1", "red", CREATE), NONE);
	assert_int_equal(tenant_put(m, "", "b1", "blue", CREATE), NONE);
	/* A tenant makes nothing for others, nor takes what is theirs, nor gives its own away. */
	assert_int_equal(tenant_put(m, "red", "r2", "blue", CREATE), INVALID);
	assert_int_equal(tenant_put(m, "red", "r2", "", CREATE), INVALID);
	assert_int_equal(tenant_put(m, "red", "b1", "red", CREATE), EXISTS);
	assert_int_equal(tenant_put(m, "red", "b1", "red", UPSERT), EXISTS);
	assert_int_equal(tenant_put(m, "red", "b1", "red", REPLACE), NOT_FOUND);
	assert_int_equal(tenant_put(m, "red", "r1", "blue", REPLACE), INVALID);
	assert_int_equal(tenant_delete(m, "red", "b1"), NOT_FOUND);
	assert_int_equal(tenant_delete(m, "red", "r1"), NONE);
	/* Others may do all that. */
	assert_int_equal(tenant_put(m, "", "b1", "red", REPLACE), NONE);
	assert_int_equal(tenant_put(m, "", "b1", "blue", REPLACE), NONE);
}

static void test_quotas(void **state)
{
	struct model *m = *state;
	Tb__Cluster *cluster;

	assert_int_equal(tenant_quota(m, "a b", 1), INVALID);
	assert_int_equal(tenant_quota(m, "red", 2), NONE);
	expect_event(m, "tenant.changed|root@test||||tenant red may have 2 sites");
	assert_int_equal(tenant_quota(m, "blue", 1), NONE);
	assert_int_equal(tenant_quota(m, "green", 7), NONE);
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_int_equal(cluster->n_quotas, 3);
	assert_string_equal(cluster->quotas[0]->tenant, "blue");
	assert_string_equal(cluster->quotas[2]->tenant, "red");
	tb__cluster__free_unpacked(cluster, NULL);
	assert_int_equal(tenant_put(m, "", "r1", "red", CREATE), NONE);
	assert_int_equal(tenant_put(m, "red", "r2", "red", UPSERT), NONE);
	assert_int_equal(tenant_put(m, "red", "r3", "red", UPSERT), LIMIT);
	assert_int_equal(tenant_put(m, "", "r3", "red", CREATE), LIMIT); /* whoever makes it */
	assert_int_equal(tenant_put(m, "", "x", "", CREATE), NONE);
	assert_int_equal(tenant_put(m, "", "x", "red", REPLACE), LIMIT); /* nor by a label */
	assert_int_equal(tenant_put(m, "", "b1", "blue", CREATE), NONE);
	/* With less than it has, it keeps those, and may change them. */
	assert_int_equal(tenant_quota(m, "red", 1), NONE);
	assert_int_equal(tenant_put(m, "", "r1", "red", REPLACE), NONE);
	assert_int_equal(tenant_delete(m, "red", "r2"), NONE);
	assert_int_equal(tenant_put(m, "red", "r2", "red", UPSERT), LIMIT);
	assert_int_equal(tenant_quota(m, "red", 0), NONE);
	expect_event(m, "tenant.changed|root@test||||tenant red may have any number of sites");
	assert_int_equal(tenant_put(m, "red", "r2", "red", UPSERT), NONE);
	assert_int_equal(tenant_put(m, "red", "r3", "red", UPSERT), NONE);
}

/* --- alarms ---------------------------------------------------------------------------------- */

static int alarm_command(struct model *m, Tb__Alarm *raise, Tb__Alarm *clear)
{
	Tb__AlarmSet op = TB__ALARM_SET__INIT;
	struct command c;

	op.raise = &raise;
	op.n_raise = raise != NULL;
	op.clear = &clear;
	op.n_clear = clear != NULL;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_ALARM_SET;
	c.c.alarm_set = &op;
	return command_refusal(m, &c);
}

static size_t alarm_count(struct model *m)
{
	Tb__Cluster *cluster;
	size_t count;

	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	count = cluster->n_alarms;
	for (size_t i = 1; i < count; i++)
		assert_true(strcmp(cluster->alarms[i - 1]->kind, cluster->alarms[i]->kind) <= 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(cluster->alarms[i]->since_ms, TEST_TIME);
	tb__cluster__free_unpacked(cluster, NULL);
	return count;
}

static void test_alarms(void **state)
{
	struct model *m = *state;
	Tb__Alarm slow = TB__ALARM__INIT;
	Tb__Alarm alone = TB__ALARM__INIT;
	uint64_t events;

	slow.kind = TEXT("disk-slow");
	slow.subject = TEXT("b1");
	slow.message = TEXT("it is slow");
	alone.kind = TEXT("site-alone");
	alone.subject = TEXT("a");
	alone.message = TEXT("it is alone");
	assert_int_equal(alarm_command(m, &alone, NULL), NONE);
	expect_event(m, "alarm.raised|root@test|a|||it is alone");
	assert_int_equal(alarm_command(m, &slow, NULL), NONE);
	expect_event(m, "alarm.raised|root@test||b1||it is slow");
	assert_int_equal(alarm_count(m), 2);
	/* It is there: nothing happens, whatever it says now. */
	events = last_event(m);
	slow.message = TEXT("it is slower");
	assert_int_equal(alarm_command(m, &slow, NULL), NONE);
	assert_int_equal(last_event(m), events);
	assert_int_equal(alarm_command(m, NULL, &slow), NONE);
	expect_event(m, "alarm.cleared|root@test||b1||over: it is slow");
	events = last_event(m);
	assert_int_equal(alarm_command(m, NULL, &slow), NONE);
	assert_int_equal(last_event(m), events);
	assert_int_equal(alarm_count(m), 1);
	slow.message = TEXT("\n");
	assert_int_equal(alarm_command(m, &slow, NULL), INVALID);
	slow.message = TEXT("");
	for (unsigned i = 0; i <= LIMIT_ALARMS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		slow.subject = name;
		assert_int_equal(alarm_command(m, &slow, NULL), NONE);
	}
	assert_int_equal(alarm_count(m), LIMIT_ALARMS);
}

static void test_node_zone(void **state)
{
	struct model *m = *state;
	Tb__NodeZone op = TB__NODE_ZONE__INIT;
	Tb__Node *row;
	struct command c;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_ZONE;
	c.c.node_zone = &op;
	op.id = 1;
	op.zone = TEXT("hall\t1");
	expect(m, &c, INVALID, "zone");
	op.zone = TEXT("hall 1");
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	assert_int_equal(store_node_get(m->s, 1, &row), 0);
	assert_string_equal(row->zone, "hall 1");
	tb__node__free_unpacked(row, NULL);
	op.id = 9;
	command_renew(m, &c);
	expect(m, &c, NOT_FOUND, "id");
}

/* --- the level ------------------------------------------------------------------------------- */

/* What the first release refuses or does otherwise, for sites with agents. */
static void level_for_agents(void)
{
	Tb__Command command = TB__COMMAND__INIT;
	Tb__CertificateAdd add = TB__CERTIFICATE_ADD__INIT;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	Tb__GrantSet give = TB__GRANT_SET__INIT;
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__SitePut put = TB__SITE_PUT__INIT;
	Tb__Site site = TB__SITE__INIT;
	Tb__SitePolicy policy = TB__SITE_POLICY__INIT;
	Tb__Site *sites[] = {&site};

	command.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	command.certificate_add = &add;
	add.certificate = &certificate;
	certificate.kind = TEXT("site");
	assert_int_equal(command_level(&command), 1);
	certificate.kind = TEXT("agent");
	assert_int_equal(command_level(&command), 2);
	command.op_case = TB__COMMAND__OP_GRANT_SET;
	command.grant_set = &give;
	give.grant = &grant;
	assert_int_equal(command_level(&command), 1);
	grant.lease = true;
	assert_int_equal(command_level(&command), 2);
	command.op_case = TB__COMMAND__OP_SITE_PUT;
	command.site_put = &put;
	put.sites = sites;
	put.n_sites = 1;
	assert_int_equal(command_level(&command), 1);
	site.policy = &policy;
	assert_int_equal(command_level(&command), 1);
	policy.lease = TB__LEASE_POLICY__LEASE_POLICY_GENERATION;
	assert_int_equal(command_level(&command), 2);
	policy = (Tb__SitePolicy)TB__SITE_POLICY__INIT;
	policy.algorithm = TB__ALGORITHM__ALGORITHM_LEASE;
	assert_int_equal(command_level(&command), 2);
	command.op_case = TB__COMMAND__OP_LEASE_NOTE;
	assert_int_equal(command_level(&command), 2);
}

static void test_level(void **state)
{
	struct model *m = *state;
	Tb__ClusterLevel op = TB__CLUSTER_LEVEL__INIT;
	Tb__TokenAdd add = TB__TOKEN_ADD__INIT;
	Tb__Token token = TB__TOKEN__INIT;
	Tb__Cluster *cluster;
	struct command c;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_LEVEL;
	c.c.cluster_level = &op;
	op.level = LEVEL_HERE + 1;
	expect(m, &c, INVALID, "level");
	op.level = 2;
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	op.level = 1;
	command_renew(m, &c);
	expect(m, &c, NONE, ""); /* never back */
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_int_equal(cluster->level, 2);
	tb__cluster__free_unpacked(cluster, NULL);
	/* What each command needs: the first release knows all below 30. */
	for (int i = TB__COMMAND__OP_CLUSTER_INIT; i <= TB__COMMAND__OP_EVENT_ADD; i++) {
		Tb__Command command = TB__COMMAND__INIT;

		command.op_case = (Tb__Command__OpCase)i;
		command.token_add = &add;
		assert_int_equal(command_level(&command), 1);
	}
	for (int i = TB__COMMAND__OP_NODE_DRAIN; i <= TB__COMMAND__OP_NODE_ZONE; i++) {
		Tb__Command command = TB__COMMAND__INIT;

		command.op_case = (Tb__Command__OpCase)i;
		assert_int_equal(command_level(&command), 2);
	}
	for (int i = TB__COMMAND__OP_ADDRESS_SET; i <= TB__COMMAND__OP_ADDRESS_REMOVE; i++) {
		Tb__Command command = TB__COMMAND__INIT;

		command.op_case = (Tb__Command__OpCase)i;
		assert_int_equal(command_level(&command), 3);
	}
	Tb__Command command = TB__COMMAND__INIT;

	command.op_case = TB__COMMAND__OP_TOKEN_ADD;
	command.token_add = &add;
	add.token = &token;
	assert_int_equal(command_level(&command), 1);
	token.role = TB__ROLE__ROLE_AGENT; /* an old board would refuse what a new one takes */
	assert_int_equal(command_level(&command), 2);
	token.role = TB__ROLE__ROLE_VIEWER;
	token.replaces = 3; /* an old board would keep the one that is replaced */
	assert_int_equal(command_level(&command), 2);
	level_for_agents();
}

/* --- the CA ---------------------------------------------------------------------------------- */

static int ca_command(struct model *m, Tb__Command__OpCase op_case, void *op)
{
	struct command c;

	command_start(m, &c);
	c.c.op_case = op_case;
	c.c.ca_rotate = op; /* all members of the union are pointers to messages */
	return command_refusal(m, &c);
}

static void secrets_expect(struct model *m, const char *ca, const char *next, const char *old)
{
	Tb__Secrets *s;

	assert_int_equal(store_secrets_get(m->s, &s), 0);
	assert_string_equal(s->ca_cert, ca);
	assert_string_equal(s->next_ca_cert, next);
	assert_string_equal(s->old_ca_cert, old);
	tb__secrets__free_unpacked(s, NULL);
}

static void node_certificate(struct model *m, const char *serial, const char *ca_sha256)
{
	Tb__Certificate row = TB__CERTIFICATE__INIT;
	Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
	struct command c;

	row.serial = TEXT(serial);
	row.kind = TEXT("node");
	row.subject = TEXT("b1");
	row.ca_sha256 = TEXT(ca_sha256);
	row.saved = true; /* not the proposer's to say */
	row.not_after_ms = TEST_TIME * 10;
	op.certificate = &row;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &op;
	assert_int_equal(command_refusal(m, &c), NONE);
}

static int certificate_saved(struct model *m, const char *serial)
{
	Tb__CertificateSaved op = TB__CERTIFICATE_SAVED__INIT;
	struct command c;

	op.serial = TEXT(serial);
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_SAVED;
	c.c.certificate_saved = &op;
	assert_int_equal(command_level(&c.c), 3);
	return command_refusal(m, &c);
}

/* To the overlap of two CAs; "00ff" is the new one. */
static void ca_overlap(struct model *m)
{
	Tb__CaRotate rotate = TB__CA_ROTATE__INIT;
	Tb__CaAdvance advance = TB__CA_ADVANCE__INIT;

	rotate.next_ca_cert = TEXT("NEW");
	rotate.next_ca_key = TEXT("NEW KEY");
	rotate.bridge_cert = TEXT("BRIDGE");
	assert_int_equal(ca_command(m, TB__COMMAND__OP_CA_ROTATE, &rotate), NONE);
	advance.ca_sha256 = TEXT("00ff");
	advance.rotation_index = m->index;
	assert_int_equal(ca_command(m, TB__COMMAND__OP_CA_ADVANCE, &advance), NONE);
}

/* A recorded certificate does not count while its board has not said that it is on its disk. */
static void test_ca_saved(void **state)
{
	static const char of_before[] = "dddddddddddddddddddddddddddddddd";
	static const char recorded[] = "cccccccccccccccccccccccccccccccc";
	struct model *m = *state;
	Tb__CaFinish finish = TB__CA_FINISH__INIT;

	level_set(m, LEVEL_HERE);
	ca_overlap(m);
	node_certificate(m, of_before, "00fe");
	assert_int_equal(certificate_saved(m, of_before), NONE);
	node_certificate(m, recorded, "00ff");
	assert_int_equal(ca_command(m, TB__COMMAND__OP_CA_FINISH, &finish), CONFLICT);
	assert_int_equal(certificate_saved(m, "00"), NOT_FOUND);
	assert_int_equal(certificate_saved(m, recorded), NONE);
	assert_int_equal(certificate_saved(m, recorded), NONE); /* again: nothing to do */
	assert_int_equal(ca_command(m, TB__COMMAND__OP_CA_FINISH, &finish), NONE);
}

/* A certificate of an API client, or of the agent of a site's node. */
static int holder_certificate(struct model *m, unsigned number, const char *kind,
			      const char *subject, uint32_t node, const char *ca_sha256,
			      int64_t not_after_ms)
{
	Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
	Tb__Certificate row = TB__CERTIFICATE__INIT;
	struct command c;
	char serial[40];

	snprintf(serial, sizeof(serial), "%032x", number);
	row.serial = serial;
	row.kind = TEXT(kind);
	row.subject = TEXT(subject);
	row.node = node;
	row.role = strcmp(kind, "client") == 0 ? TB__ROLE__ROLE_VIEWER : TB__ROLE__ROLE_NONE;
	row.ca_sha256 = TEXT(ca_sha256);
	row.not_after_ms = not_after_ms;
	op.certificate = &row;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &op;
	return command_refusal(m, &c);
}

static void finish_expect(struct model *m, bool force, const char *text)
{
	Tb__CaFinish finish = TB__CA_FINISH__INIT;
	struct apply_result result;
	struct command c;

	finish.force = force;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CA_FINISH;
	c.c.ca_finish = &finish;
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.results[0]->refusal, text != NULL ? CONFLICT : NONE);
	if (text != NULL)
		assert_non_null(strstr(result.results[0]->message, text));
	apply_result_free(&result);
}

/* Nobody is locked out by the end of a rotation without a word. */
static void test_ca_left_behind(void **state)
{
	static const char own[] = "cccccccccccccccccccccccccccccccc";
	static const struct {
		const char *kind, *subject;
		uint32_t node;
		int ends; /* it has expired by then */
	} of_before[] = {
		{"client", "ann", 0, 0}, /* 1 */
		{"client", "ann", 0, 0}, /* 2: counted once */
		{"agent", "shop", 1, 0}, /* 3 */
		{"agent", "shop", 2, 0}, /* 4 */
		{"client", "bob", 0, 1}, /* 5 */
	};
	struct model *m = *state;

	level_set(m, LEVEL_HERE);
	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	for (unsigned i = 0; i < sizeof(of_before) / sizeof(of_before[0]); i++)
		assert_int_equal(holder_certificate(m, i + 1, of_before[i].kind,
						    of_before[i].subject, of_before[i].node, "",
						    of_before[i].ends ? TEST_TIME : TEST_TIME * 10),
				 NONE);
	ca_overlap(m);
	finish_expect(m, true, "board b1"); /* a board is never left behind */
	node_certificate(m, own, "00ff");
	assert_int_equal(certificate_saved(m, own), NONE);
	finish_expect(m, false,
		      "3 agents and API clients have no certificate of the new CA, the first is "
		      "client ann;");
	assert_int_equal(holder_certificate(m, 11, "client", "ann", 0, "00ff", TEST_TIME * 10),
			 NONE);
	assert_int_equal(holder_certificate(m, 12, "agent", "shop", 2, "00ff", TEST_TIME * 10),
			 NONE);
	finish_expect(m, false,
		      "1 agents and API clients have no certificate of the new CA, the first is "
		      "the agent of node 1 of site shop;");
	finish_expect(m, true, NULL);
}

static void test_ca_rotation(void **state)
{
	struct model *m = *state;
	Tb__CaRotate rotate = TB__CA_ROTATE__INIT;
	Tb__CaAdvance advance = TB__CA_ADVANCE__INIT;
	Tb__CaFinish finish = TB__CA_FINISH__INIT;
	Tb__Cluster *cluster;
	const Tb__Command__OpCase ROTATE = TB__COMMAND__OP_CA_ROTATE;
	const Tb__Command__OpCase ADVANCE = TB__COMMAND__OP_CA_ADVANCE;
	const Tb__Command__OpCase FINISH = TB__COMMAND__OP_CA_FINISH;

	assert_int_equal(ca_command(m, FINISH, &finish), NONE); /* nothing to finish */
	assert_int_equal(ca_command(m, ADVANCE, &advance), CONFLICT);
	assert_int_equal(ca_command(m, ROTATE, &rotate), INVALID);
	rotate.next_ca_cert = TEXT("NEW");
	rotate.next_ca_key = TEXT("NEW KEY");
	rotate.bridge_cert = TEXT("BRIDGE");
	assert_int_equal(ca_command(m, ROTATE, &rotate), NONE);
	secrets_expect(m, "", "NEW", "");
	assert_int_equal(ca_command(m, ROTATE, &rotate), CONFLICT); /* one at a time */
	/* Given up before anything was signed. */
	assert_int_equal(ca_command(m, FINISH, &finish), NONE);
	secrets_expect(m, "", "", "");
	assert_int_equal(ca_command(m, ROTATE, &rotate), NONE);
	advance.ca_sha256 = TEXT("00ff");
	advance.rotation_index = m->index - 1; /* of an earlier look */
	assert_int_equal(ca_command(m, ADVANCE, &advance), CONFLICT);
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	advance.rotation_index = cluster->ca_rotation_index;
	tb__cluster__free_unpacked(cluster, NULL);
	assert_int_equal(ca_command(m, ADVANCE, &advance), NONE);
	secrets_expect(m, "NEW", "", "");
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_string_equal(cluster->ca_sha256, "00ff");
	assert_int_equal(cluster->ca_rotation, TB__CA_ROTATION__CA_ROTATION_OVERLAP);
	tb__cluster__free_unpacked(cluster, NULL);
	/* While a board has its certificate from the old one, that one is needed. */
	assert_int_equal(ca_command(m, FINISH, &finish), CONFLICT);
	node_certificate(m, "dddddddddddddddddddddddddddddddd", "00fe");
	assert_int_equal(ca_command(m, FINISH, &finish), CONFLICT);
	node_certificate(m, "cccccccccccccccccccccccccccccccc", "00ff");
	assert_int_equal(ca_command(m, FINISH, &finish), NONE);
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_int_equal(cluster->ca_rotation, TB__CA_ROTATION__CA_ROTATION_NONE);
	tb__cluster__free_unpacked(cluster, NULL);
}

static void site_certificate(struct model *m, const char *serial, const char *site,
			     uint32_t generation)
{
	Tb__Certificate row = TB__CERTIFICATE__INIT;
	Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
	struct command c;

	row.serial = TEXT(serial);
	row.kind = TEXT("site");
	row.subject = TEXT(site);
	row.ca_generation = generation;
	row.not_after_ms = TEST_TIME * 10;
	op.certificate = &row;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &op;
	assert_int_equal(command_refusal(m, &c), NONE);
}

static void site_ca_expect(struct model *m, const char *ca, const char *old, uint32_t generation,
			   Tb__CaRotation rotation)
{
	Tb__Cluster *cluster;
	Tb__Secrets *s;

	assert_int_equal(store_secrets_get(m->s, &s), 0);
	assert_string_equal(s->qnet_ca_cert, ca);
	assert_string_equal(s->old_qnet_ca_cert, old);
	assert_string_equal(s->qnet_bridge_cert,
			    rotation == TB__CA_ROTATION__CA_ROTATION_NONE ? "" : "BRIDGE");
	tb__secrets__free_unpacked(s, NULL);
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_int_equal(cluster->site_ca_generation, generation);
	assert_int_equal(cluster->site_ca_rotation, rotation);
	tb__cluster__free_unpacked(cluster, NULL);
}

static void test_site_ca_rotation(void **state)
{
	struct model *m = *state;
	Tb__SiteCaRotate rotate = TB__SITE_CA_ROTATE__INIT;
	Tb__SiteCaFinish finish = TB__SITE_CA_FINISH__INIT;
	const Tb__Command__OpCase ROTATE = TB__COMMAND__OP_SITE_CA_ROTATE;
	const Tb__Command__OpCase FINISH = TB__COMMAND__OP_SITE_CA_FINISH;
	struct command c;

	assert_int_equal(model_put_site(m, "never-enrolled", TB__SITE_PUT__MODE__MODE_CREATE),
			 NONE);
	assert_int_equal(model_put_site(m, "of-before", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	assert_int_equal(model_put_site(m, "renewed", TB__SITE_PUT__MODE__MODE_CREATE), NONE);
	site_certificate(m, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "of-before", 0);
	site_certificate(m, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "renewed", 0);
	assert_int_equal(ca_command(m, FINISH, &finish), NONE); /* nothing to finish */
	assert_int_equal(ca_command(m, ROTATE, &rotate), INVALID);
	rotate.ca_cert = TEXT("NEW");
	rotate.ca_key = TEXT("NEW KEY");
	rotate.bridge_cert = TEXT("BRIDGE");
	rotate.server_cert = TEXT("SERVER");
	assert_int_equal(ca_command(m, ROTATE, &rotate), INVALID);
	site_ca_expect(m, "", "", 0, TB__CA_ROTATION__CA_ROTATION_NONE);
	rotate.server_key = TEXT("SERVER KEY");
	assert_int_equal(ca_command(m, ROTATE, &rotate), NONE);
	site_ca_expect(m, "NEW", "", 1, TB__CA_ROTATION__CA_ROTATION_OVERLAP);
	assert_int_equal(ca_command(m, ROTATE, &rotate), CONFLICT); /* one at a time */
	site_certificate(m, "cccccccccccccccccccccccccccccccc", "renewed", 1);
	command_start(m, &c);
	c.c.op_case = FINISH;
	c.c.site_ca_finish = &finish;
	expect(m, &c, CONFLICT, "");
	site_ca_expect(m, "NEW", "", 1, TB__CA_ROTATION__CA_ROTATION_OVERLAP);
	site_certificate(m, "dddddddddddddddddddddddddddddddd", "of-before", 1);
	assert_int_equal(ca_command(m, FINISH, &finish), NONE);
	site_ca_expect(m, "NEW", "", 1, TB__CA_ROTATION__CA_ROTATION_NONE);
	/* Once more; its sites are given up. */
	rotate.ca_cert = TEXT("NEWER");
	assert_int_equal(ca_command(m, ROTATE, &rotate), NONE);
	site_ca_expect(m, "NEWER", "NEW", 2, TB__CA_ROTATION__CA_ROTATION_OVERLAP);
	finish.force = 1;
	assert_int_equal(ca_command(m, FINISH, &finish), NONE);
	site_ca_expect(m, "NEWER", "", 2, TB__CA_ROTATION__CA_ROTATION_NONE);
}

static void test_certificate_life(void **state)
{
	struct model *m = *state;
	Tb__ClusterCertificates op = TB__CLUSTER_CERTIFICATES__INIT;
	struct command c;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_CERTIFICATES;
	c.c.cluster_certificates = &op;
	op.life_ms = 59999;
	expect(m, &c, INVALID, "certificateLifeMs");
	op.life_ms = LIMIT_CERTIFICATE_LIFE_MAX_MS + 1;
	command_renew(m, &c);
	expect(m, &c, INVALID, "certificateLifeMs");
	op.life_ms = 60000;
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	expect_event(
		m, "cluster.changed|root@test||||certificates of boards and API clients live 60 s "
		   "from now on");
}

/* --- sites ----------------------------------------------------------------------------------- */

static void test_site_check(void **state)
{
	static const char long_name[] =
		"a2345678901234567890123456789012345678901234567890123456789012345";
	static const struct {
		const char *name;
		const char *key;
		const char *value;
		Tb__SitePolicy policy;
		const char *field;
	} cases[] = {
		{.name = "london-1", .field = ""},
		{.name = "1.a_b-c", .field = ""},
		{.name = "", .field = "name"},
		{.name = "-a", .field = "name"},
		{.name = "a b", .field = "name"},
		{.name = "a\nb", .field = "name"},
		{.name = "Z\xc3\xbcrich", .field = "name"},
		{.name = long_name, .field = "name"},
		{.name = "a", .key = "region", .value = "Z\xc3\xbcrich", .field = ""},
		{.name = "a", .key = "example.org/x", .value = "", .field = ""},
		{.name = "a", .key = "", .value = "", .field = "labels"},
		{.name = "a", .key = "a b", .value = "", .field = "labels"},
		{.name = "a", .key = "k", .value = "a\tb", .field = "labels.k"},
		{.name = "a", .key = "k", .value = "\xff", .field = "labels.k"},
		{.name = "a", .key = "k", .value = long_name, .field = "labels.k"},
		{.name = "a", .key = long_name, .value = "", .field = "labels"},
		{.name = "a", .policy.algorithm = (Tb__Algorithm)9, .field = "policy.algorithm"},
		{.name = "a", .policy.tls = (Tb__Tls)-1, .field = "policy.tls"},
		{.name = "a", .policy.handover = (Tb__Handover)2, .field = "policy.handover"},
		{.name = "a", .policy.tie_breaker_node = 1, .field = "policy.tieBreakerNode"},
		{.name = "a",
		 .policy.tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_NODE,
		 .field = "policy.tieBreakerNode"},
		{.name = "a",
		 .policy.tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_NODE,
		 .policy.tie_breaker_node = 3,
		 .field = ""},
		{.name = "a", .policy.lease = (Tb__LeasePolicy)4, .field = "policy.lease"},
		{.name = "a", .policy.lease_node = 1, .field = "policy.leaseNode"},
		{.name = "a",
		 .policy.lease = TB__LEASE_POLICY__LEASE_POLICY_PREFERRED,
		 .field = "policy.leaseNode"},
		{.name = "a",
		 .policy.lease = TB__LEASE_POLICY__LEASE_POLICY_PREFERRED,
		 .policy.lease_node = 2,
		 .field = ""},
		{.name = "a", .policy.lease = TB__LEASE_POLICY__LEASE_POLICY_MANUAL, .field = ""},
		{.name = "a", .policy.algorithm = TB__ALGORITHM__ALGORITHM_LEASE, .field = ""},
		{.name = "a", .policy.heartbeat_min_ms = 999, .field = "policy.heartbeatMinMs"},
		{.name = "a", .policy.heartbeat_max_ms = 120001, .field = "policy.heartbeatMaxMs"},
		{.name = "a",
		 .policy.heartbeat_min_ms = 2000,
		 .policy.heartbeat_max_ms = 1000,
		 .field = "policy.heartbeatMinMs"},
		{.name = "a", .policy.heartbeat_min_ms = 120000, .field = ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__Site site = TB__SITE__INIT;
		Tb__Site__LabelsEntry label = TB__SITE__LABELS_ENTRY__INIT;
		Tb__Site__LabelsEntry *labels[] = {&label, &label};
		Tb__SitePolicy policy = cases[i].policy;
		struct apply_problem problem = {.field = "", .message = ""};
		int rv;

		tb__site_policy__init(&policy);
		policy.algorithm = cases[i].policy.algorithm;
		policy.tls = cases[i].policy.tls;
		policy.handover = cases[i].policy.handover;
		policy.tie_breaker = cases[i].policy.tie_breaker;
		policy.tie_breaker_node = cases[i].policy.tie_breaker_node;
		policy.heartbeat_min_ms = cases[i].policy.heartbeat_min_ms;
		policy.heartbeat_max_ms = cases[i].policy.heartbeat_max_ms;
		policy.lease = cases[i].policy.lease;
		policy.lease_node = cases[i].policy.lease_node;
		site.name = TEXT(cases[i].name);
		site.policy = &policy;
		if (cases[i].key != NULL) {
			label.key = TEXT(cases[i].key);
			label.value = TEXT(cases[i].value);
			site.labels = labels;
			site.n_labels = 1;
		}
		rv = site_check(&site, &problem);
		assert_string_equal(problem.field, cases[i].field);
		assert_int_equal(rv, cases[i].field[0] != '\0' ? -EINVAL : 0);
		if (rv == 0 && site.n_labels == 1) {
			site.n_labels = 2; /* the same label twice */
			assert_int_equal(site_check(&site, &problem), -EINVAL);
		}
	}
}

static void test_check_says_where(void **state)
{
	struct apply_problem problem;

	(void)state;
	assert_int_equal(name_check("lon don", "name", &problem), -EINVAL);
	assert_string_equal(problem.message,
			    "character 4 is a space; use 1 to 64 letters, digits, dots, dashes "
			    "and underscores, beginning with a letter or digit");
}

static void test_site_modes(void **state)
{
	struct model *m = *state;

	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	expect_event(m, "site.created|root@test|london-1|||site london-1 created");
	assert_int_equal(model_put_site(m, "london-1", CREATE), EXISTS);
	assert_int_equal(model_put_site(m, "london-1", REPLACE), NONE);
	assert_int_equal(model_put_site(m, "london-2", REPLACE), NOT_FOUND);
	assert_int_equal(model_put_site(m, "london-2", UPSERT), NONE);
	assert_int_equal(model_put_site(m, "london-2", UPSERT), NONE);
	assert_int_equal(model_put_site(m, "london 2", UPSERT), INVALID);
	assert_int_equal(model_put_site(m, "a", (Tb__SitePut__Mode)3), INVALID);
	expect_event(m, "site.created|root@test|london-2|||site london-2 created");
}

struct site_case {
	Tb__Site site;
	Tb__SitePolicy policy;
	Tb__Site__LabelsEntry labels[2];
	Tb__Site__LabelsEntry *list[2];
};

static void site_case_make(struct site_case *t, const char *name)
{
	tb__site__init(&t->site);
	tb__site_policy__init(&t->policy);
	for (int i = 0; i < 2; i++) {
		tb__site__labels_entry__init(&t->labels[i]);
		t->list[i] = &t->labels[i];
	}
	t->labels[0].key = TEXT("region");
	t->labels[0].value = TEXT("emea");
	t->labels[1].key = TEXT("owner");
	t->labels[1].value = TEXT("ann");
	t->site.name = TEXT(name);
	t->site.labels = t->list;
	t->site.n_labels = 2;
}

/* Puts sites by UPSERT; the result is the caller's to free. */
static void put(struct model *m, Tb__Site **sites, size_t count, uint64_t if_revision,
		struct apply_result *ret)
{
	Tb__SitePut op = TB__SITE_PUT__INIT;
	struct command c;

	op.sites = sites;
	op.n_sites = count;
	op.mode = UPSERT;
	op.if_revision = if_revision;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_PUT;
	c.c.site_put = &op;
	assert_int_equal(command_apply_to(m, &c, ret), 0);
}

static void expect_put(struct model *m, Tb__Site **sites, size_t count, uint64_t if_revision,
		       int refusal, const char *field)
{
	struct apply_result result;

	put(m, sites, count, if_revision, &result);
	assert_int_equal(result.results[0]->refusal, refusal);
	assert_string_equal(result.results[0]->field, field);
	apply_result_free(&result);
}

/* Equal means equal in what a person wrote: not the order of labels, not what the cluster fills in.
 */
static void test_upsert_leaves_equal_alone(void **state)
{
	struct model *m = *state;
	Tb__SiteStatus status = TB__SITE_STATUS__INIT;
	struct apply_result result;
	struct site_case t;
	Tb__Site *sites[] = {&t.site};
	Tb__Site *row;
	uint64_t events;

	site_case_make(&t, "london-1");
	put(m, sites, 1, 0, &result);
	assert_int_equal(result.results[0]->created, 1);
	assert_int_equal(result.site_count, 1);
	assert_string_equal(result.sites[0], "london-1");
	apply_result_free(&result);
	events = last_event(m);
	t.list[0] = &t.labels[1];
	t.list[1] = &t.labels[0];
	t.site.policy = &t.policy;
	t.site.id = 77;
	t.site.revision = 88;
	t.site.created_ms = 99;
	t.site.status = &status;
	put(m, sites, 1, 0, &result);
	assert_int_equal(result.results[0]->unchanged, 1);
	assert_int_equal(result.results[0]->changed, 0);
	assert_int_equal(result.site_count, 0);
	apply_result_free(&result);
	assert_int_equal(last_event(m), events);

	t.policy.tls = TB__TLS__TLS_REQUIRED;
	put(m, sites, 1, 0, &result);
	assert_int_equal(result.results[0]->changed, 1);
	apply_result_free(&result);
	assert_int_equal(store_site_find(m->s, "london-1", &row), 0);
	assert_int_equal(row->id, 1);
	assert_int_equal(row->revision, m->index);
	assert_int_equal(row->created_ms, TEST_TIME);
	assert_null(row->status);
	assert_string_equal(row->labels[0]->key, "owner"); /* sorted */
	tb__site__free_unpacked(row, NULL);
	expect_event(m, "site.changed|root@test|london-1|||site london-1 changed");
}

static void test_site_revisions(void **state)
{
	struct model *m = *state;
	struct site_case t;
	Tb__Site *sites[] = {&t.site};
	uint64_t revision;

	site_case_make(&t, "london-1");
	expect_put(m, sites, 1, 5, CONFLICT, "ifRevision"); /* it is not there */
	expect_put(m, sites, 1, 0, NONE, "");
	revision = m->index;
	t.labels[1].value = TEXT("bob");
	expect_put(m, sites, 1, revision - 1, CONFLICT, "ifRevision");
	expect_put(m, sites, 1, revision, NONE, "");
	t.labels[1].value = TEXT("cy");
	expect_put(m, sites, 1, revision, CONFLICT, "ifRevision");
}

static void test_bulk_is_all_or_nothing(void **state)
{
	struct model *m = *state;
	struct site_case t[3];
	Tb__Site *sites[LIMIT_BULK + 1] = {&t[0].site, &t[1].site, &t[2].site};
	uint64_t count;

	site_case_make(&t[0], "a");
	site_case_make(&t[1], "b");
	site_case_make(&t[2], "c!");
	expect_put(m, sites, 3, 0, INVALID, "sites[2].name");
	t[2].site.name = TEXT("a");
	expect_put(m, sites, 3, 0, INVALID, "sites[2].name");
	t[2].site.name = TEXT("c");
	t[2].policy.tie_breaker_node = 4;
	t[2].site.policy = &t[2].policy;
	expect_put(m, sites, 3, 0, INVALID, "sites[2].policy.tieBreakerNode");
	assert_int_equal(store_count(m->s, "site", &count), 0);
	assert_int_equal(count, 0);
	expect_event(m, "cluster.created|root@test||b1||cluster c1 created on board b1");
	t[2].site.policy = NULL;
	expect_put(m, sites, 3, 7, INVALID, "ifRevision");
	expect_put(m, sites, 0, 0, INVALID, "sites");
	for (size_t i = 3; i <= LIMIT_BULK; i++)
		sites[i] = &t[0].site;
	expect_put(m, sites, LIMIT_BULK + 1, 0, LIMIT, "sites");
	expect_put(m, sites, 3, 0, NONE, "");
	assert_int_equal(site_id(m, "a"), 1); /* refused ones used no id up */
}

static void test_site_limit(void **state)
{
	struct model *m = *state;
	char name[16];
	uint64_t id;

	assert_int_equal(store_begin(m->s), 0);
	for (int i = 0; i < LIMIT_SITES; i++) {
		Tb__Site row = TB__SITE__INIT;

		snprintf(name, sizeof(name), "s%d", i);
		row.name = name;
		assert_int_equal(store_counter_next(m->s, "site", &row.id), 0);
		assert_int_equal(store_site_put(m->s, &row), 0);
	}
	assert_int_equal(store_commit(m->s, m->index), 0);
	assert_int_equal(model_put_site(m, "one-more", CREATE), LIMIT);
	assert_int_equal(model_put_site(m, "s7", REPLACE), NONE);
	id = site_id(m, "s7");
	assert_int_equal(model_delete_site(m, "s7"), NONE);
	assert_int_equal(model_put_site(m, "s7", CREATE), NONE);
	assert_true(site_id(m, "s7") != id);
}

static void test_site_delete(void **state)
{
	struct model *m = *state;
	char *names[] = {TEXT("a"), TEXT("b"), TEXT("gone")};
	Tb__SiteDelete op = TB__SITE_DELETE__INIT;
	struct apply_result result;
	struct command c;

	assert_int_equal(model_put_site(m, "a", CREATE), NONE);
	assert_int_equal(model_put_site(m, "b", CREATE), NONE);
	op.names = names;
	op.n_names = 3;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_DELETE;
	c.c.site_delete = &op;
	expect(m, &c, NOT_FOUND, "names[2]");
	site_id(m, "a"); /* still there */
	names[2] = TEXT("a");
	command_renew(m, &c);
	expect(m, &c, NOT_FOUND, "names[2]"); /* twice */
	op.n_names = 1;
	op.if_revision = 1;
	command_renew(m, &c);
	expect(m, &c, CONFLICT, "ifRevision");
	op.n_names = 2;
	op.if_revision = 0;
	command_renew(m, &c);
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.results[0]->deleted, 2);
	assert_int_equal(result.site_count, 2);
	apply_result_free(&result);
	expect_event(m, "site.deleted|root@test|b|||site b deleted");
}

/* --- grants ---------------------------------------------------------------------------------- */

static void test_grants(void **state)
{
	struct model *m = *state;
	struct apply_result result;
	Tb__GrantSet op = TB__GRANT_SET__INIT;
	Tb__Grant grant = TB__GRANT__INIT;
	uint32_t nodes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	struct command c;
	uint64_t id;
	uint64_t requests;
	uint64_t requests_after;

	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	id = site_id(m, "london-1");
	assert_int_equal(store_count(m->s, "request", &requests), 0);
	assert_int_equal(model_grant(m, 99, 0, 1, 1), NOT_FOUND);
	assert_int_equal(model_grant(m, id, 1, 2, 1), CONFLICT); /* no grant yet: epoch 0 */
	assert_int_equal(model_grant(m, id, 0, 0, 1), INVALID);
	assert_int_equal(model_grant(m, id, 0, UINT64_MAX, 1), INVALID);
	assert_int_equal(model_grant(m, id, 0, 1, 0), INVALID); /* node 0 */
	assert_int_equal(model_grant(m, id, 0, 7, 1), NONE);
	expect_event(m, "grant.given|root@test|london-1|||vote of london-1 given to node 1 on ring "
			"1.29 (epoch 7): node 2 confirmed its refusal");
	assert_int_equal(model_grant(m, id, 0, 8, 2), CONFLICT); /* decided on an old state */
	assert_int_equal(model_grant(m, id, 7, 7, 2), CONFLICT);
	assert_int_equal(model_grant(m, id, 7, 3, 2), CONFLICT);
	assert_int_equal(model_grant(m, id, 7, 9, 2), NONE);
	expect_event(m, "grant.moved|root@test|london-1|||vote of london-1 given to node 2 on ring "
			"2.29 (epoch 9): node 2 confirmed its refusal");
	assert_int_equal(model_grant(m, id, 9, 10, 2), NONE);
	/* A storm of grants must not push out the ids of commands that may be tried again. */
	assert_int_equal(store_count(m->s, "request", &requests_after), 0);
	assert_int_equal(requests_after, requests);

	grant.site_id = id;
	grant.epoch = 11;
	grant.nodes = nodes;
	op.grant = &grant;
	op.after_epoch = 10;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_GRANT_SET;
	c.c.grant_set = &op;
	expect(m, &c, INVALID, "grant.nodes"); /* to nobody */
	grant.n_nodes = 10;
	nodes[3] = 2;
	command_renew(m, &c);
	expect(m, &c, INVALID, "grant.nodes"); /* not sorted */
	nodes[3] = 4;
	grant.reason = TEXT("line\nbreak");
	command_renew(m, &c);
	expect(m, &c, INVALID, "grant.reason");
	grant.reason = TEXT("");
	command_renew(m, &c);
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.grant_count, 1);
	assert_int_equal(result.grants[0]->epoch, 11);
	assert_int_equal(result.grants[0]->granted_ms, TEST_TIME);
	apply_result_free(&result);
	expect_event(m,
		     "grant.moved|root@test|london-1|||vote of london-1 given to nodes 1, 2, 3, 4, "
		     "5, 6, 7, 8 and 2 more on ring 0.0 (epoch 11)");
}

static void test_leases(void **state)
{
	struct model *m = *state;
	Tb__LeaseNote note = TB__LEASE_NOTE__INIT;
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__GrantSet op = TB__GRANT_SET__INIT;
	uint32_t nodes[] = {1, 2};
	struct apply_result result;
	struct command c;

	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	grant.site_id = site_id(m, "london-1");
	grant.epoch = 1;
	grant.nodes = nodes;
	grant.n_nodes = 2;
	grant.lease = true;
	grant.generation = 5;
	grant.reason = TEXT("only node 1 wants the lease");
	op.grant = &grant;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_GRANT_SET;
	c.c.grant_set = &op;
	expect(m, &c, INVALID, "grant.nodes"); /* to two */
	grant.n_nodes = 1;
	command_renew(m, &c);
	expect(m, &c, NONE, "");
	expect_event(
		m,
		"lease.granted|root@test|london-1|||lease of london-1 given to node 1 (epoch 1): "
		"only node 1 wants the lease");
	note.site_id = grant.site_id;
	note.epoch = 2;
	note.generation = 9;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_LEASE_NOTE;
	c.c.lease_note = &note;
	expect(m, &c, CONFLICT, "epoch"); /* of another lease */
	note.epoch = 1;
	command_renew(m, &c);
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.grant_count, 1);
	assert_int_equal(result.grants[0]->generation, 9);
	apply_result_free(&result);
	note.generation = 7; /* it never goes back */
	command_renew(m, &c);
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.grants[0]->generation, 9);
	apply_result_free(&result);
	note.site_id = 777;
	command_renew(m, &c);
	expect(m, &c, CONFLICT, "epoch");
}

/* An epoch is a fencing token: it is never given twice to a site of one name. */
static void test_epochs_survive_deletion(void **state)
{
	struct model *m = *state;
	struct store *restored;
	struct buf snapshot = {0};
	Tb__Grant *grant;
	uint64_t id;

	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	assert_int_equal(model_grant(m, site_id(m, "london-1"), 0, 40, 1), NONE);
	assert_int_equal(model_delete_site(m, "london-1"), NONE);
	assert_int_equal(store_snapshot(m->s, &snapshot), 0);
	assert_int_equal(store_open(":memory:", &restored), 0);
	assert_int_equal(store_restore(restored, snapshot.data, snapshot.len), 0);
	store_close(m->s);
	m->s = restored;
	assert_int_equal(model_put_site(m, "london-1", CREATE), NONE);
	id = site_id(m, "london-1");
	assert_int_equal(store_grant_get(m->s, id, &grant), 0);
	assert_int_equal(grant->epoch, 40);
	assert_int_equal(grant->n_nodes, 0); /* nobody holds it */
	tb__grant__free_unpacked(grant, NULL);
	assert_int_equal(model_grant(m, id, 0, 1, 1), CONFLICT);
	assert_int_equal(model_grant(m, id, 40, 41, 1), NONE);
	expect_event(m, "grant.given|root@test|london-1|||vote of london-1 given to node 1 on ring "
			"1.29 (epoch 41): node 2 confirmed its refusal");
	buf_free(&snapshot);
}

/* --- certificates, events -------------------------------------------------------------------- */

static int certificate_revoke(struct model *m, const char *serial)
{
	Tb__CertificateRevoke op = TB__CERTIFICATE_REVOKE__INIT;
	struct command c;

	op.serial = TEXT(serial);
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_REVOKE;
	c.c.certificate_revoke = &op;
	return command_refusal(m, &c);
}

static void test_certificates(void **state)
{
#define SERIAL2 "abababababababababababababababab"
#define SERIAL3 "acacacacacacacacacacacacacacacac"
#define SERIAL "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	static const struct {
		const char *serial;
		const char *kind;
		const char *subject;
		Tb__Role role;
		int refusal;
		const char *field;
	} cases[] = {
		{"aa", "client", "ann", TB__ROLE__ROLE_VIEWER, 4, "certificate.serial"},
		{SERIAL, "server", "ann", TB__ROLE__ROLE_NONE, 4, "certificate.kind"},
		{SERIAL, "client", "a b", TB__ROLE__ROLE_VIEWER, 4, "certificate.subject"},
		{SERIAL, "client", "ann", TB__ROLE__ROLE_NONE, 4, "certificate.role"},
		{SERIAL, "client", "ann", TB__ROLE__ROLE_NODE, 4, "certificate.role"},
		{SERIAL, "site", "ann", TB__ROLE__ROLE_ADMIN, 4, "certificate.role"},
		{SERIAL, "site", "ann", TB__ROLE__ROLE_NODE, 4, "certificate.role"},
		{SERIAL2, "site", "ann", TB__ROLE__ROLE_SITE, 0, ""},
		{SERIAL3, "node", "ann", TB__ROLE__ROLE_NODE, 0, ""},
		{SERIAL, "client", "ann", TB__ROLE__ROLE_ADMIN, 0, ""},
		{SERIAL, "client", "bob", TB__ROLE__ROLE_ADMIN, 2, "certificate.serial"},
	};
	struct model *m = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
		Tb__Certificate row = TB__CERTIFICATE__INIT;
		struct command c;

		row.serial = TEXT(cases[i].serial);
		row.kind = TEXT(cases[i].kind);
		row.subject = TEXT(cases[i].subject);
		row.role = cases[i].role;
		op.certificate = &row;
		command_start(m, &c);
		c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
		c.c.certificate_add = &op;
		expect(m, &c, cases[i].refusal, cases[i].field);
	}
	expect_event(m,
		     "certificate.issued|root@test||||client certificate " SERIAL " issued to ann");
	assert_int_equal(certificate_revoke(m, "bb"), NOT_FOUND);
	assert_int_equal(certificate_revoke(m, SERIAL), NONE);
	assert_int_equal(revoked(m, SERIAL), 1);
	expect_event(
		m, "certificate.revoked|root@test||||client certificate " SERIAL " of ann revoked");
	assert_int_equal(certificate_revoke(m, SERIAL), NONE); /* again: nothing to do */
}

static int certificate_add(struct model *m, const char *serial, int64_t time_ms)
{
	Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
	Tb__Certificate row = TB__CERTIFICATE__INIT;
	struct command c;

	row.serial = TEXT(serial);
	row.kind = TEXT("site");
	row.subject = TEXT("london-1");
	row.not_after_ms = time_ms + 1000;
	op.certificate = &row;
	command_start(m, &c);
	c.c.time_ms = time_ms;
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &op;
	return command_refusal(m, &c);
}

static void test_certificate_limit(void **state)
{
	struct model *m = *state;
	uint64_t count;

	assert_int_equal(store_begin(m->s), 0);
	for (int i = 1; i < LIMIT_CERTIFICATES; i++) { /* the board has one */
		Tb__Certificate row = TB__CERTIFICATE__INIT;
		char serial[40];

		snprintf(serial, sizeof(serial), "%032x", i);
		row.serial = serial;
		row.kind = TEXT("site");
		row.not_after_ms = i <= 10 ? TEST_TIME + 5 : TEST_TIME * 10;
		row.revoked = i > 10 && i <= 20; /* revoked and valid ones must stay */
		assert_int_equal(store_certificate_put(m->s, &row), 0);
	}
	assert_int_equal(store_commit(m->s, m->index), 0);
	assert_int_equal(certificate_add(m, SERIAL, TEST_TIME + 5), LIMIT);
	assert_int_equal(certificate_add(m, SERIAL, TEST_TIME + 6), NONE);
	assert_int_equal(store_count(m->s, "certificate", &count), 0);
	assert_int_equal(count, LIMIT_CERTIFICATES - 9);
}

/* A certificate of a site or its agent `node`, by whom `tenant` says; the refusal. */
static int certificate_for(struct model *m, unsigned number, const char *kind, const char *site,
			   uint64_t id, uint32_t node, const char *tenant)
{
	Tb__CertificateAdd op = TB__CERTIFICATE_ADD__INIT;
	Tb__Certificate row = TB__CERTIFICATE__INIT;
	struct command c;
	char serial[40];

	snprintf(serial, sizeof(serial), "%032x", number);
	row.serial = serial;
	row.kind = TEXT(kind);
	row.subject = TEXT(site);
	row.site_id = id;
	row.node = node;
	row.not_after_ms = TEST_TIME * 10;
	op.certificate = &row;
	command_start(m, &c);
	c.c.tenant = TEXT(tenant);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &op;
	return command_refusal(m, &c);
}

static int revoked_number(struct model *m, unsigned number)
{
	char serial[40];

	snprintf(serial, sizeof(serial), "%032x", number);
	return revoked(m, serial);
}

static int token_of_site(struct model *m, const char *id, Tb__Role role, const char *site)
{
	Tb__Token token;

	token_make(&token, role);
	token.id = TEXT(id);
	token.site = TEXT(site);
	return token_add(m, &token);
}

static int token_revoked(struct model *m, const char *id)
{
	Tb__Token *row;
	int value;

	assert_int_equal(store_token_get(m->s, id, &row), 0);
	value = row->revoked;
	tb__token__free_unpacked(row, NULL);
	return value;
}

/* What was given out for a site opens no other one of its name. */
static void test_site_certificates(void **state)
{
	struct model *m = *state;
	struct apply_result result;
	uint64_t first;
	struct command c;
	Tb__SiteDelete op = TB__SITE_DELETE__INIT;
	char *names[] = {TEXT("shop")};

	level_set(m, LEVEL_HERE);
	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	assert_int_equal(model_put_site(m, "shop2", CREATE), NONE);
	first = site_id(m, "shop");
	assert_int_equal(certificate_for(m, 1, "site", "shop", first, 0, ""), NONE);
	assert_int_equal(certificate_for(m, 2, "agent", "shop", first, 1, ""), NONE);
	assert_int_equal(certificate_for(m, 3, "agent", "shop", 0, 2, ""), NONE);
	assert_int_equal(certificate_for(m, 4, "site", "shop2", 0, 0, ""), NONE);
	/* Signed for another site, for none, or by one who does not see it. */
	assert_int_equal(certificate_for(m, 5, "site", "shop", first + 1, 0, ""), NOT_FOUND);
	assert_int_equal(certificate_for(m, 5, "agent", "none", 0, 1, ""), NOT_FOUND);
	assert_int_equal(certificate_for(m, 5, "site", "shop", first, 0, "blue"), NOT_FOUND);
	assert_int_equal(token_of_site(m, "00000000000000b1", TB__ROLE__ROLE_SITE, "shop"), NONE);
	assert_int_equal(token_of_site(m, "00000000000000b2", TB__ROLE__ROLE_AGENT, "shop"), NONE);
	assert_int_equal(token_of_site(m, "00000000000000b3", TB__ROLE__ROLE_AGENT, "shop2"), NONE);
	op.names = names;
	op.n_names = 1;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_DELETE;
	c.c.site_delete = &op;
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	assert_int_equal(result.results[0]->deleted, 1);
	assert_int_equal(result.results[0]->changed, 0);
	assert_true(result.certificates_changed);
	apply_result_free(&result);
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(revoked_number(m, i), i != 4);
	assert_true(token_revoked(m, "00000000000000b1"));
	assert_true(token_revoked(m, "00000000000000b2"));
	assert_false(token_revoked(m, "00000000000000b3"));
	assert_int_equal(certificate_saved(m, "00000000000000000000000000000004"), INVALID);
	/* A request that was on its way when the site was deleted and made anew. */
	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	assert_int_equal(certificate_for(m, 6, "site", "shop", first, 0, ""), NOT_FOUND);
	assert_int_equal(certificate_for(m, 6, "site", "shop", site_id(m, "shop"), 0, ""), NONE);
}

/* Neither a site nor an agent fills the table. */
static void test_certificates_of_one_holder(void **state)
{
	struct model *m = *state;
	unsigned number = 0;

	level_set(m, LEVEL_HERE);
	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	for (unsigned i = 0; i < LIMIT_HOLDER_CERTIFICATES; i++) {
		assert_int_equal(certificate_for(m, ++number, "site", "shop", 0, 0, ""), NONE);
		assert_int_equal(certificate_for(m, ++number, "agent", "shop", 0, 1, ""), NONE);
	}
	assert_int_equal(certificate_for(m, ++number, "site", "shop", 0, 0, ""), LIMIT);
	assert_int_equal(certificate_for(m, ++number, "agent", "shop", 0, 1, ""), LIMIT);
	/* One that is revoked makes room. */
	assert_int_equal(certificate_revoke(m, "00000000000000000000000000000001"), NONE);
	assert_int_equal(certificate_for(m, ++number, "site", "shop", 0, 0, ""), NONE);
	assert_int_equal(certificate_for(m, ++number, "site", "shop", 0, 0, ""), LIMIT);
	/* Nor by naming many nodes. */
	for (unsigned i = LIMIT_HOLDER_CERTIFICATES; i < LIMIT_SITE_CERTIFICATES; i++)
		assert_int_equal(certificate_for(m, ++number, "agent", "shop", 0, i, ""), NONE);
	assert_int_equal(certificate_for(m, ++number, "agent", "shop", 0, 999, ""), LIMIT);
	assert_int_equal(certificate_revoke(m, "00000000000000000000000000000002"), NONE);
	assert_int_equal(certificate_for(m, ++number, "agent", "shop", 0, 999, ""), NONE);
}

/* When sites have filled it, boards and clients still get theirs. */
static void test_certificates_reserved(void **state)
{
	struct model *m = *state;

	level_set(m, LEVEL_HERE);
	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	assert_int_equal(store_begin(m->s), 0);
	for (int i = 1; i < LIMIT_CERTIFICATES - LIMIT_CERTIFICATES_RESERVED - 1; i++) {
		Tb__Certificate row = TB__CERTIFICATE__INIT;
		char serial[40];

		snprintf(serial, sizeof(serial), "%032x", i);
		row.serial = serial;
		row.kind = TEXT("site");
		row.subject = TEXT("other");
		row.not_after_ms = TEST_TIME * 10;
		assert_int_equal(store_certificate_put(m->s, &row), 0);
	}
	assert_int_equal(store_commit(m->s, m->index), 0);
	assert_int_equal(certificate_for(m, 100001, "site", "shop", 0, 0, ""), NONE);
	assert_int_equal(certificate_for(m, 100002, "site", "shop", 0, 0, ""), LIMIT);
	assert_int_equal(certificate_for(m, 100003, "agent", "shop", 0, 1, ""), LIMIT);
	node_certificate(m, "cccccccccccccccccccccccccccccccc", "");
	assert_int_equal(holder_certificate(m, 100004, "client", "ann", 0, "", TEST_TIME * 10),
			 NONE);
}

/* Boards of the release before apply the same entries: they must come to the same model. */
static void test_site_certificates_of_before(void **state)
{
	struct model *m = *state;

	assert_int_equal(model_put_site(m, "shop", CREATE), NONE);
	assert_int_equal(certificate_for(m, 1, "site", "shop", 0, 0, ""), NONE);
	assert_int_equal(certificate_for(m, 2, "site", "none", 0, 0, ""), NONE);
	assert_int_equal(token_of_site(m, "00000000000000b1", TB__ROLE__ROLE_SITE, "shop"), NONE);
	assert_int_equal(model_delete_site(m, "shop"), NONE);
	expect_event(m, "site.deleted|root@test|shop|||site shop deleted");
	assert_int_equal(revoked_number(m, 1), 0);
	assert_false(token_revoked(m, "00000000000000b1"));
}

static void test_event_add(void **state)
{
	static const char limit[LIMIT_MESSAGE + 2] = {[0 ... LIMIT_MESSAGE] = 'x'};
	static const struct {
		const char *type;
		const char *message;
		int severity;
		const char *field;
	} cases[] = {
		{"", "m", 0, "event.type"},
		{"a b", "m", 0, "event.type"},
		{"lease.lost", limit, 0, "event.message"},
		{"lease.lost", "a\x1b[2J", 0, "event.message"},
		{"lease.lost", "m", 3, "event.severity"},
		{"lease.lost", "m", 2, ""},
	};
	struct model *m = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__EventAdd op = TB__EVENT_ADD__INIT;
		Tb__Event event = TB__EVENT__INIT;
		struct command c;

		event.seq = 12345;
		event.type = TEXT(cases[i].type);
		event.message = TEXT(cases[i].message);
		event.severity = (Tb__Severity)cases[i].severity;
		event.node = TEXT("b1");
		op.event = &event;
		command_start(m, &c);
		c.c.op_case = TB__COMMAND__OP_EVENT_ADD;
		c.c.event_add = &op;
		expect(m, &c, cases[i].field[0] != '\0' ? INVALID : NONE, cases[i].field);
	}
	expect_event(m, "lease.lost|root@test||b1||m");
	assert_int_equal(last_event(m), 2);
}

/* A command whose parts are missing is refused, whatever it is. */
static void test_missing_parts(void **state)
{
	struct model *m = *state;
	Tb__NodeAdd node_add_op = TB__NODE_ADD__INIT;
	Tb__TokenAdd token_add_op = TB__TOKEN_ADD__INIT;
	Tb__GrantSet grant_op = TB__GRANT_SET__INIT;
	Tb__CertificateAdd certificate_op = TB__CERTIFICATE_ADD__INIT;
	Tb__EventAdd event_op = TB__EVENT_ADD__INIT;
	struct command c;

	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_NODE_ADD;
	c.c.node_add = &node_add_op;
	expect(m, &c, INVALID, "node");
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_TOKEN_ADD;
	c.c.token_add = &token_add_op;
	expect(m, &c, INVALID, "token");
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_GRANT_SET;
	c.c.grant_set = &grant_op;
	expect(m, &c, INVALID, "grant");
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	c.c.certificate_add = &certificate_op;
	expect(m, &c, INVALID, "certificate");
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_EVENT_ADD;
	c.c.event_add = &event_op;
	expect(m, &c, INVALID, "event");
}

/* --- the same entries give the same model ----------------------------------------------------- */

/* One random command on few names, so that it often hits something and is often refused. */
static int random_command(struct prng *p, struct model *m)
{
	char name[8];
	uint64_t id = 1 + prng_below(p, 30);
	uint64_t epoch = prng_below(p, 6);

	snprintf(name, sizeof(name), "s%u", (unsigned)prng_below(p, 12));
	switch (prng_below(p, 8)) {
	case 0:
		return model_delete_site(m, name);
	case 1:
	case 2:
		return model_grant(m, id, epoch, epoch + 1, (uint32_t)prng_below(p, 4));
	case 3: {
		Tb__Token token;
		char text[20];

		token_make(&token, TB__ROLE__ROLE_NODE);
		snprintf(text, sizeof(text), "%016x", (unsigned)prng_below(p, 5));
		token.id = text;
		return prng_chance(p, 50) ? token_add(m, &token) : token_revoke(m, text);
	}
	case 4: {
		Tb__NodeAdd op;
		Tb__Node node;

		node_add_make(&op, &node, name);
		op.token_id = TEXT("0000000000000001");
		return prng_chance(p, 70) ? node_add(m, &op, TEST_TIME)
					  : node_remove(m, prng_below(p, 12));
	}
	case 5:
		return model_put_site(m, prng_chance(p, 90) ? name : "bad name", CREATE);
	default:
		return model_put_site(m, name, UPSERT);
	}
}

static void model_reload(struct model *m)
{
	struct buf snapshot = {0};
	struct store *fresh;

	assert_int_equal(store_snapshot(m->s, &snapshot), 0);
	assert_int_equal(store_open(":memory:", &fresh), 0);
	assert_int_equal(store_restore(fresh, snapshot.data, snapshot.len), 0);
	store_close(m->s);
	m->s = fresh;
	buf_free(&snapshot);
}

/* One model goes straight on; the other is stopped and rebuilt from its snapshot now and then. */
static void test_determinism(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct prng p[2] = {{seed}, {seed}};
		struct model m[2];
		char digests[2][65];

		print_message("seed %u\n", (unsigned)seed);
		model_open(&m[0]);
		model_open(&m[1]);
		assert_int_equal(model_init_cluster(&m[0]), model_init_cluster(&m[1]));
		for (int i = 0; i < 300; i++) {
			assert_int_equal(random_command(&p[0], &m[0]),
					 random_command(&p[1], &m[1]));
			if (i % 50 == 49)
				model_reload(&m[1]);
		}
		assert_int_equal(store_digest(m[0].s, digests[0]), 0);
		assert_int_equal(store_digest(m[1].s, digests[1]), 0);
		assert_string_equal(digests[0], digests[1]);
		store_close(m[0].s);
		store_close(m[1].s);
	}
}

/* --- speed, printed only ---------------------------------------------------------------------- */

enum { FLEET = 10000 };

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int page_visit(void *arg, const Tb__Site *row, const Tb__Grant *grant)
{
	char **last = arg;

	(void)grant;
	free(*last);
	*last = mem_strdup(row->name);
	return 0;
}

static void import(struct model *m, int from, int count)
{
	static struct site_case t[LIMIT_BULK];
	static char names[LIMIT_BULK][16];
	Tb__Site *sites[LIMIT_BULK];
	struct apply_result result;

	for (int i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "store-%05d", from + i);
		site_case_make(&t[i], names[i]);
		sites[i] = &t[i].site;
	}
	put(m, sites, (size_t)count, 0, &result);
	assert_int_equal(result.results[0]->refusal, NONE);
	apply_result_free(&result);
}

/* All grants of a split storm, as the leader groups them: 100 to an entry. */
static void storm(struct model *m)
{
	enum { GROUP = 100 };
	static struct command c[GROUP];
	static Tb__GrantSet op[GROUP];
	static Tb__Grant grant[GROUP];
	static uint32_t node = 1;
	Tb__Command *list[GROUP];
	struct buf packed = {0};
	struct apply_result result;

	for (uint64_t from = 1; from <= FLEET; from += GROUP) {
		for (uint64_t i = 0; i < GROUP; i++) {
			tb__grant__init(&grant[i]);
			tb__grant_set__init(&op[i]);
			grant[i].site_id = from + i;
			grant[i].epoch = 1;
			grant[i].nodes = &node;
			grant[i].n_nodes = 1;
			grant[i].reason = TEXT("node 2 confirmed its refusal");
			op[i].grant = &grant[i];
			command_start(m, &c[i]);
			c[i].c.op_case = TB__COMMAND__OP_GRANT_SET;
			c[i].c.grant_set = &op[i];
			list[i] = &c[i].c;
		}
		entry_pack(list, GROUP, &packed);
		assert_int_equal(apply_entry(m->s, ++m->index, packed.data, packed.len, &result),
				 0);
		assert_int_equal(result.grant_count, GROUP);
		apply_result_free(&result);
	}
	buf_free(&packed);
}

static void test_speed(void **state)
{
	char dir[] = "/dev/shm/test_apply.XXXXXX";
	char *path;
	struct model m = {0};
	struct store *reader;
	struct buf snapshot = {0};
	char *last = mem_strdup("");
	double t[7];
	uint64_t count = 0;

	(void)state;
	if (mkdtemp(dir) == NULL)
		skip();
	path = mem_printf("%s/model.db", dir);
	assert_int_equal(store_open(path, &m.s), 0);
	assert_int_equal(model_init_cluster(&m), NONE);
	t[0] = now_ms();
	for (int i = 0; i < FLEET; i += LIMIT_BULK)
		import(&m, i, FLEET - i < LIMIT_BULK ? FLEET - i : LIMIT_BULK);
	t[1] = now_ms();
	for (int i = 0; i < FLEET; i += LIMIT_BULK)
		import(&m, i, FLEET - i < LIMIT_BULK ? FLEET - i : LIMIT_BULK);
	t[2] = now_ms();
	storm(&m);
	t[3] = now_ms();
	assert_int_equal(store_open_reader(path, &reader), 0);
	for (int i = 0; i < FLEET / LIMIT_PAGE; i++) {
		struct store_site_filter filter = {.after_name = last, .limit = LIMIT_PAGE};
		char *before = mem_strdup(last);

		filter.after_name = before;
		assert_int_equal(store_sites(reader, &filter, page_visit, &last, NULL), 0);
		free(before);
	}
	assert_string_equal(last, "store-09999");
	t[4] = now_ms();
	assert_int_equal(store_sites_count(reader,
					   &(struct store_site_filter){
						   .label_selector = "region=emea,owner!=bob"},
					   &count),
			 0);
	assert_int_equal(count, FLEET);
	t[5] = now_ms();
	assert_int_equal(store_snapshot(m.s, &snapshot), 0);
	t[6] = now_ms();
	assert_int_equal(store_restore(m.s, snapshot.data, snapshot.len), 0);
	print_message("%d sites, CPU: import %.0f ms, again (nothing changes) %.0f ms, "
		      "a grant each %.0f ms, list in pages of %d %.0f ms, count by labels %.1f ms, "
		      "snapshot of %zu kB %.0f ms, restore %.0f ms\n",
		      FLEET, t[1] - t[0], t[2] - t[1], t[3] - t[2], LIMIT_PAGE, t[4] - t[3],
		      t[5] - t[4], snapshot.len / 1024, t[6] - t[5], now_ms() - t[6]);
	store_close(reader);
	store_close(m.s);
	unlink(path);
	rmdir(dir);
	buf_free(&snapshot);
	free(last);
	free(path);
}

/* --- service addresses --- */

static void address_command(struct model *m, struct command *c, Tb__AddressSet *op,
			    Tb__ServiceAddress *row, const char *address, unsigned prefix,
			    const char *interface)
{
	tb__service_address__init(row);
	tb__address_set__init(op);
	row->address = TEXT(address);
	row->prefix = prefix;
	row->interface = TEXT(interface);
	op->address = row;
	command_start(m, c);
	c->c.op_case = TB__COMMAND__OP_ADDRESS_SET;
	c->c.address_set = op;
}

static int address_set(struct model *m, const char *address, unsigned prefix, const char *interface)
{
	Tb__ServiceAddress row;
	Tb__AddressSet op;
	struct command c;

	address_command(m, &c, &op, &row, address, prefix, interface);
	return command_refusal(m, &c);
}

static int address_remove(struct model *m, const char *address)
{
	Tb__AddressRemove op = TB__ADDRESS_REMOVE__INIT;
	struct command c;

	op.address = TEXT(address);
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_ADDRESS_REMOVE;
	c.c.address_remove = &op;
	return command_refusal(m, &c);
}

static void test_service_address_check(void **state)
{
	static const struct {
		const char *address;
		unsigned prefix;
		const char *interface;
		const char *field; /* NULL: good */
		const char *words;
	} cases[] = {
		{"10.0.0.5", 24, "eth0", NULL, NULL},
		{"10.0.0.4", 31, "eth0.100", NULL, NULL},
		{"10.0.0.255", 32, "br-lan", NULL, NULL},
		{"fd00::5", 64, "eth0", NULL, NULL},
		{"2001:db8::", 64, "eth0", NULL, NULL},
		{"", 24, "eth0", "address", "no address"},
		{"10.0.0", 24, "eth0", "address", "no address"},
		{"name", 24, "eth0", "address", "no address"},
		{"10.0.0.5/24", 24, "eth0", "address", "no address"},
		{"FD00::5", 64, "eth0", "address", "write it as fd00::5"},
		{"::ffff:10.0.0.5", 96, "eth0", "address", "write it as 10.0.0.5"},
		{"0.0.0.0", 24, "eth0", "address", "no address of a machine"},
		{"0.1.2.3", 24, "eth0", "address", "no address of a machine"},
		{"::", 64, "eth0", "address", "no address of a machine"},
		{"127.1.2.3", 8, "eth0", "address", "loopback"},
		{"::1", 128, "eth0", "address", "loopback"},
		{"224.0.0.1", 4, "eth0", "address", "multicast"},
		{"ff02::1", 64, "eth0", "address", "multicast"},
		{"240.0.0.1", 24, "eth0", "address", "reserved"},
		{"255.255.255.255", 32, "eth0", "address", "reserved"},
		{"fe80::5", 64, "eth0", "address", "link-local"},
		{"10.0.0.0", 24, "eth0", "address", "network itself or its broadcast"},
		{"10.0.0.255", 24, "eth0", "address", "network itself or its broadcast"},
		{"10.0.0.5", 0, "eth0", "prefix", "1 to 32"},
		{"10.0.0.5", 33, "eth0", "prefix", "1 to 32"},
		{"fd00::5", 129, "eth0", "prefix", "1 to 128"},
		{"10.0.0.5", 24, "", "interface", "missing"},
		{"10.0.0.5", 24, "sixteen-bytes-ab", "interface", "longer than 15"},
		{"10.0.0.5", 24, "eth 0", "interface", "letters"},
		{"10.0.0.5", 24, "eth/0", "interface", "letters"},
		{"10.0.0.5", 24, "eth0:1", "interface", "letters"},
		{"10.0.0.5", 24, "\xc3\xa4", "interface", "letters"},
		{"10.0.0.5", 24, "lo", "interface", "loopback"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__ServiceAddress row = TB__SERVICE_ADDRESS__INIT;
		struct apply_problem problem = {0};
		int rv;

		row.address = TEXT(cases[i].address);
		row.prefix = cases[i].prefix;
		row.interface = TEXT(cases[i].interface);
		rv = service_address_check(&row, &problem);
		if ((rv != 0) != (cases[i].field != NULL) ||
		    (rv != 0 && (strcmp(problem.field, cases[i].field) != 0 ||
				 strstr(problem.message, cases[i].words) == NULL)))
			fail_msg("%s/%u at %s: %s: %s", cases[i].address, cases[i].prefix,
				 cases[i].interface, problem.field, problem.message);
	}
}

static void test_service_addresses(void **state)
{
	static const char *const order[] = {"9.0.0.5", "10.0.0.5", "fd00::5"};
	struct model *m = *state;
	Tb__ServiceAddress row;
	Tb__AddressSet op;
	struct command c;
	char *boards[2] = {TEXT("b1"), TEXT("b7")};
	Tb__Cluster *cluster;
	char text[32];

	assert_int_equal(address_set(m, "fd00::5", 64, "eth0"), NONE);
	assert_int_equal(address_set(m, "10.0.0.5", 24, "eth0"), NONE);
	assert_int_equal(address_set(m, "9.0.0.5", 24, "eth0"), NONE);
	assert_int_equal(address_set(m, "10.0.0.5", 24, "eth1"), NONE); /* changed */
	assert_int_equal(address_set(m, "10.0.0.256", 24, "eth1"), INVALID);
	/* The own address of board b1 (model_init_cluster). */
	assert_int_equal(address_set(m, "192.0.2.1", 24, "eth0"), INVALID);
	assert_int_equal(store_cluster_get(m->s, &cluster), 0);
	assert_int_equal(cluster->n_addresses, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(cluster->addresses[i]->address, order[i]);
	assert_string_equal(cluster->addresses[1]->interface, "eth1");
	assert_int_equal(cluster->addresses[1]->added_ms, TEST_TIME);
	tb__cluster__free_unpacked(cluster, NULL);
	/* Only boards of the cluster may be named, sorted. */
	address_command(m, &c, &op, &row, "10.0.0.6", 24, "eth0");
	row.boards = boards;
	row.n_boards = 2;
	assert_int_equal(command_refusal(m, &c), INVALID);
	address_command(m, &c, &op, &row, "10.0.0.6", 24, "eth0");
	row.boards = boards;
	row.n_boards = 1;
	assert_int_equal(command_refusal(m, &c), NONE);
	assert_int_equal(address_remove(m, "10.0.0.6"), NONE);
	assert_int_equal(address_remove(m, "10.0.0.6"), NOT_FOUND);
	assert_int_equal(address_remove(m, "nonsense"), NOT_FOUND);
	/* The pool's limit; what is there can still be changed. */
	for (unsigned i = 3; i < LIMIT_ADDRESSES; i++) {
		snprintf(text, sizeof(text), "10.1.0.%u", i);
		assert_int_equal(address_set(m, text, 24, "eth0"), NONE);
	}
	assert_int_equal(address_set(m, "10.2.0.1", 24, "eth0"), LIMIT);
	assert_int_equal(address_set(m, "10.1.0.3", 24, "eth7"), NONE);
	assert_int_equal(address_remove(m, "9.0.0.5"), NONE);
	assert_int_equal(address_set(m, "10.2.0.1", 24, "eth0"), NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_envelope, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undecodable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_id_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_before_init, setup, teardown),
		cmocka_unit_test_setup_teardown(test_init_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cluster_set, setup, teardown),
		cmocka_unit_test_setup_teardown(test_token_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_token_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join_tokens, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_set, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_replace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_replace_unlooked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restore, setup, teardown),
		cmocka_unit_test_setup_teardown(test_alarms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_zone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tenants, setup, teardown),
		cmocka_unit_test(test_service_address_check),
		cmocka_unit_test_setup_teardown(test_service_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_quotas, setup, teardown),
		cmocka_unit_test_setup_teardown(test_level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ca_rotation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ca_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ca_left_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_ca_rotation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificate_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_check, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_says_where, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_modes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upsert_leaves_equal_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_revisions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bulk_is_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_delete, setup, teardown),
		cmocka_unit_test_setup_teardown(test_grants, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leases, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_epochs_survive_deletion, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificate_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_certificates_of_before, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates_of_one_holder, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates_reserved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_add, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_determinism, setup, teardown),
		cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
