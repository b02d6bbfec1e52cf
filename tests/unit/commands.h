/* commands.h: builds log entries for the tests of the model. A command gets the next id and a
 * fixed time unless the test sets its own. */
#pragma once
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/apply.h"
#include "lib/buf.h"
#include "lib/mem.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

enum { TEST_TIME = 1000000 };

struct model {
	struct store *s;
	uint64_t index; /* of the last entry */
	uint64_t id; /* of the last command */
};

struct command {
	Tb__Command c;
	uint8_t id[16];
};

/* The same command as a new one: only the id changes. */
static inline void command_renew(struct model *m, struct command *c)
{
	memset(c->id, 0, sizeof(c->id));
	m->id++;
	memcpy(c->id, &m->id, sizeof(m->id));
	c->c.id = (ProtobufCBinaryData){.data = c->id, .len = sizeof(c->id)};
}

static inline void command_start(struct model *m, struct command *c)
{
	tb__command__init(&c->c);
	command_renew(m, c);
	c->c.time_ms = TEST_TIME;
	c->c.actor = TEXT("root@test");
}

static inline void entry_pack(Tb__Command **commands, size_t count, struct buf *out)
{
	Tb__Entry entry = TB__ENTRY__INIT;

	entry.commands = commands;
	entry.n_commands = count;
	buf_clear(out);
	out->len = tb__entry__pack(&entry, buf_reserve(out, tb__entry__get_packed_size(&entry)));
}

static inline int command_apply_to(struct model *m, struct command *c, struct apply_result *ret)
{
	Tb__Command *list[] = {&c->c};
	struct buf packed = {0};
	int rv;

	entry_pack(list, 1, &packed);
	rv = apply_entry(m->s, ++m->index, packed.data, packed.len, ret);
	buf_free(&packed);
	return rv;
}

/* Applies it; the refusal, with everything else dropped. -1: the store failed. */
static inline int command_refusal(struct model *m, struct command *c)
{
	struct apply_result result;
	int refusal;

	if (command_apply_to(m, c, &result) != 0)
		return -1;
	refusal = (int)result.results[0]->refusal;
	apply_result_free(&result);
	return refusal;
}

static inline void model_open(struct model *m)
{
	*m = (struct model){0};
	if (store_open(":memory:", &m->s) != 0)
		abort();
}

#define NODE_CERTIFICATE "000102030405060708090a0b0c0d0e0f"

/* A cluster "c1" with the board "b1" (id 1) and its certificate. */
static inline int model_init_cluster(struct model *m)
{
	Tb__ClusterInit op = TB__CLUSTER_INIT__INIT;
	Tb__Cluster cluster = TB__CLUSTER__INIT;
	Tb__Secrets secrets = TB__SECRETS__INIT;
	Tb__Node node = TB__NODE__INIT;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	struct command c;

	cluster.id = TEXT("0123456789abcdef0123456789abcdef");
	cluster.name = TEXT("c1");
	secrets.ca_key = TEXT("-----BEGIN PRIVATE KEY-----");
	node.name = TEXT("b1");
	node.address = TEXT("192.0.2.1:7443");
	certificate.serial = TEXT(NODE_CERTIFICATE);
	certificate.kind = TEXT("node");
	certificate.subject = TEXT("b1");
	certificate.not_after_ms = TEST_TIME * 10;
	op.cluster = &cluster;
	op.secrets = &secrets;
	op.node = &node;
	op.certificate = &certificate;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_CLUSTER_INIT;
	c.c.cluster_init = &op;
	return command_refusal(m, &c);
}

/* Puts one site that has only a name. */
static inline int model_put_site(struct model *m, const char *name, Tb__SitePut__Mode mode)
{
	Tb__SitePut op = TB__SITE_PUT__INIT;
	Tb__Site site = TB__SITE__INIT;
	Tb__Site *sites[] = {&site};
	struct command c;

	site.name = TEXT(name);
	op.sites = sites;
	op.n_sites = 1;
	op.mode = mode;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_PUT;
	c.c.site_put = &op;
	return command_refusal(m, &c);
}

static inline int model_grant(struct model *m, uint64_t site_id, uint64_t after_epoch,
			      uint64_t epoch, uint32_t node)
{
	Tb__GrantSet op = TB__GRANT_SET__INIT;
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__RingId ring = TB__RING_ID__INIT;
	struct command c;

	ring.node = node;
	ring.seq = 29;
	grant.site_id = site_id;
	grant.epoch = epoch;
	grant.ring = &ring;
	grant.nodes = &node;
	grant.n_nodes = 1;
	grant.reason = TEXT("node 2 confirmed its refusal");
	op.grant = &grant;
	op.after_epoch = after_epoch;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_GRANT_SET;
	c.c.grant_set = &op;
	return command_refusal(m, &c);
}

static inline int model_delete_site(struct model *m, const char *name)
{
	Tb__SiteDelete op = TB__SITE_DELETE__INIT;
	char *names[] = {TEXT(name)};
	struct command c;

	op.names = names;
	op.n_names = 1;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_DELETE;
	c.c.site_delete = &op;
	return command_refusal(m, &c);
}
