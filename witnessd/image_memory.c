#include "witnessd/image_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"

struct remembered {
	char sha256[IMAGE_NAME + 1];
	struct image_identity identity;
};

struct image_memory {
	char *path; /* NULL: none */
	struct remembered *rows;
	size_t count;
};

static struct remembered *row_find(const struct image_memory *m, const char *sha256)
{
	for (size_t i = 0; i < m->count; i++)
		if (strcmp(m->rows[i].sha256, sha256) == 0)
			return &m->rows[i];
	return NULL;
}

static void row_set(struct image_memory *m, const char *sha256,
		    const struct image_identity *identity)
{
	struct remembered *row = row_find(m, sha256);

	if (row == NULL) {
		m->rows = mem_realloc(m->rows, (m->count + 1) * sizeof(*m->rows));
		row = &m->rows[m->count++];
		snprintf(row->sha256, sizeof(row->sha256), "%s", sha256);
	}
	row->identity = *identity;
}

static void line_read(struct image_memory *m, const char *line)
{
	char sha256[IMAGE_NAME + 1];
	uint64_t device, inode, size;
	int64_t seconds;
	long nanoseconds;

	if (sscanf(line, "%64s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %ld", sha256,
		   &device, &inode, &size, &seconds, &nanoseconds) != 6 ||
	    !image_name_ok(sha256))
		return;
	row_set(m, sha256,
		&(struct image_identity){.device = (dev_t)device,
					 .inode = (ino_t)inode,
					 .size = size,
					 .changed = {.tv_sec = seconds, .tv_nsec = nanoseconds}});
}

struct image_memory *image_memory_new(const char *path)
{
	struct image_memory *m = mem_zalloc(sizeof(*m));
	FILE *file = path != NULL ? fopen(path, "re") : NULL;
	char line[256];

	m->path = path != NULL ? mem_strdup(path) : NULL;
	if (file == NULL)
		return m;
	while (fgets(line, sizeof(line), file) != NULL)
		line_read(m, line);
	fclose(file);
	return m;
}

void image_memory_free(struct image_memory *m)
{
	if (m == NULL)
		return;
	free(m->path);
	free(m->rows);
	free(m);
}

bool image_memory_knows(const struct image_memory *m, const char *sha256,
			const struct image_identity *identity)
{
	const struct remembered *row = row_find(m, sha256);

	return row != NULL && image_identity_same(&row->identity, identity);
}

/* A file that cannot be written costs a check at the next start, and nothing else. */
static void memory_write(const struct image_memory *m)
{
	char *next = m->path != NULL ? mem_printf("%s.next", m->path) : NULL;
	FILE *file = next != NULL ? fopen(next, "we") : NULL;
	bool written = file != NULL;

	for (size_t i = 0; file != NULL && i < m->count; i++) {
		const struct image_identity *identity = &m->rows[i].identity;

		fprintf(file, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %ld\n",
			m->rows[i].sha256, (uint64_t)identity->device, (uint64_t)identity->inode,
			identity->size, (int64_t)identity->changed.tv_sec,
			identity->changed.tv_nsec);
	}
	if (file != NULL)
		written = fclose(file) == 0;
	if (next != NULL && (!written || rename(next, m->path) != 0))
		unlink(next);
	free(next);
}

void image_memory_add(struct image_memory *m, const char *sha256,
		      const struct image_identity *identity)
{
	row_set(m, sha256, identity);
	memory_write(m);
}

void image_memory_forget(struct image_memory *m, const char *sha256)
{
	struct remembered *row = row_find(m, sha256);

	if (row == NULL)
		return;
	*row = m->rows[--m->count];
	memory_write(m);
}
