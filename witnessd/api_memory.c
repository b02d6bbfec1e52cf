/* api_memory.c: the first answers to requests with an Idempotency-Key, for a while, on this board.
 *
 * What makes a repeated write harmless on every board is the command's id, made from the same key
 * (api_command) and remembered by the model. This memory only makes the answer the very same, also
 * where it holds a secret that is kept nowhere else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"

enum { KEPT = 512, KEPT_BYTES = 64 << 10, KEPT_MS = 10 * 60 * 1000 };

struct entry {
	char *actor;
	char *key; /* NULL: free */
	uint8_t request_sha256[32];
	uint64_t until_ms;
	struct api_remembered answer;
};

struct api_memory {
	struct entry entries[KEPT];
	unsigned next;
};

static char *strdup_or_null(const char *text)
{
	return text != NULL ? mem_strdup(text) : NULL;
}

static void entry_clear(struct entry *e)
{
	free(e->actor);
	free(e->key);
	free(e->answer.content_type);
	free(e->answer.etag);
	free(e->answer.location);
	if (e->answer.body.len > 0)
		mem_wipe(e->answer.body.data, e->answer.body.len);
	buf_free(&e->answer.body);
	*e = (struct entry){0};
}

struct api_memory *api_memory_new(void)
{
	return mem_zalloc(sizeof(struct api_memory));
}

void api_memory_free(struct api_memory *m)
{
	if (m == NULL)
		return;
	for (unsigned i = 0; i < KEPT; i++)
		entry_clear(&m->entries[i]);
	free(m);
}

static struct entry *memory_entry(struct api_memory *m, const char *actor, const char *key)
{
	uint64_t now = clock_boottime_ms();

	for (unsigned i = 0; i < KEPT; i++) {
		struct entry *e = &m->entries[i];

		if (e->key != NULL && e->until_ms <= now)
			entry_clear(e);
		if (e->key != NULL && strcmp(e->key, key) == 0 && strcmp(e->actor, actor) == 0)
			return e;
	}
	return NULL;
}

int api_memory_find(struct api_memory *m, const char *actor, const char *key,
		    const uint8_t request_sha256[32], const struct api_remembered **ret)
{
	const struct entry *e = memory_entry(m, actor, key);

	if (e == NULL)
		return 0;
	if (memcmp(e->request_sha256, request_sha256, 32) != 0)
		return -EEXIST;
	*ret = &e->answer;
	return 1;
}

void api_memory_keep(struct api_memory *m, const char *actor, const char *key,
		     const uint8_t request_sha256[32], const struct api_answer *answer)
{
	struct entry *e;

	if (answer->body_len > KEPT_BYTES || memory_entry(m, actor, key) != NULL)
		return;
	e = &m->entries[m->next];
	m->next = (m->next + 1) % KEPT;
	entry_clear(e);
	e->actor = mem_strdup(actor);
	e->key = mem_strdup(key);
	e->until_ms = clock_boottime_ms() + KEPT_MS;
	memcpy(e->request_sha256, request_sha256, 32);
	e->answer.status = answer->status;
	e->answer.content_type = strdup_or_null(answer->content_type);
	e->answer.etag = strdup_or_null(answer->etag);
	e->answer.location = strdup_or_null(answer->location);
	e->answer.no_store = answer->no_store;
	buf_append(&e->answer.body, answer->body, answer->body_len);
}
