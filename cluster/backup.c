#include "cluster/backup.h"

#include <errno.h>
#include <string.h>

#include "cluster/snapshot.h"
#include "proto/command.pb-c.h"

static const char magic[8] = {'T', 'B', 'B', 'A', 'C', 'K', 'U', 'P'};

enum { FRONT = 16, HEAD_MAX = 4096 };

/* --- writing --- */

static int count_rows(const uint8_t *model, size_t len, Tb__BackupHead *head,
		      Tb__Cluster **ret_cluster)
{
	struct snapshot_reader reader;
	struct snapshot_record record;
	const char *problem;
	int rv = snapshot_open(model, len, &reader, &problem);

	while (rv == 0 && (rv = snapshot_next(&reader, &record)) > 0) {
		rv = 0;
		if (record.row == TB__SNAPSHOT__RECORD__ROW_CLUSTER && *ret_cluster == NULL)
			*ret_cluster = tb__cluster__unpack(NULL, record.len, record.body);
		head->nodes += record.row == TB__SNAPSHOT__RECORD__ROW_NODE;
		head->sites += record.row == TB__SNAPSHOT__RECORD__ROW_SITE;
	}
	head->applied_index = reader.applied_index;
	return rv == 0 && *ret_cluster == NULL ? -EBADMSG : rv;
}

int backup_seal(const Tb__BackupHead *about, const uint8_t *model, size_t len, struct buf *out)
{
	Tb__BackupHead head = *about;
	Tb__Cluster *cluster = NULL;
	uint8_t sum[SNAPSHOT_SUM];
	size_t begin = out->len;
	size_t head_len;
	int rv;

	head.nodes = 0;
	head.sites = 0;
	rv = count_rows(model, len, &head, &cluster);
	if (rv == 0) {
		head.cluster_id = cluster->id;
		head.cluster_name = cluster->name;
		head_len = tb__backup_head__get_packed_size(&head);
		buf_append(out, magic, sizeof(magic));
		buf_put_u32(out, BACKUP_VERSION);
		buf_put_u32(out, (uint32_t)head_len);
		tb__backup_head__pack(&head, buf_reserve(out, head_len));
		out->len += head_len;
		buf_append(out, model, len);
		snapshot_sum(out->data + begin, out->len - begin, sum);
		buf_append(out, sum, sizeof(sum));
	}
	tb__cluster__free_unpacked(cluster, NULL);
	return rv;
}

/* --- reading --- */

static uint32_t u32_at(const uint8_t *data)
{
	return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static const char *front_problem(const uint8_t *data, size_t len)
{
	uint8_t sum[SNAPSHOT_SUM];

	if (len < FRONT || memcmp(data, magic, sizeof(magic)) != 0)
		return "this is not a backup of a Tiebreak cluster";
	if (u32_at(data + 8) != BACKUP_VERSION)
		return "the backup has a layout that this release does not read; restore it with "
		       "the release that wrote it";
	if (u32_at(data + 12) > HEAD_MAX || len < FRONT + u32_at(data + 12) + SNAPSHOT_SUM)
		return "the backup is damaged or cut off";
	snapshot_sum(data, len - SNAPSHOT_SUM, sum);
	if (memcmp(sum, data + len - SNAPSHOT_SUM, SNAPSHOT_SUM) != 0)
		return "the backup is damaged or cut off: its checksum does not match";
	return NULL;
}

int backup_open(const uint8_t *data, size_t len, Tb__BackupHead **ret_head,
		const uint8_t **ret_model, size_t *ret_len, const char **ret_problem)
{
	struct snapshot_reader reader;
	uint32_t head_len;

	*ret_problem = front_problem(data, len);
	if (*ret_problem != NULL)
		return -EBADMSG;
	head_len = u32_at(data + 12);
	*ret_model = data + FRONT + head_len;
	*ret_len = len - FRONT - head_len - SNAPSHOT_SUM;
	if (snapshot_open(*ret_model, *ret_len, &reader, ret_problem) != 0)
		return -EBADMSG;
	*ret_head = tb__backup_head__unpack(NULL, head_len, data + FRONT);
	if (*ret_head != NULL)
		return 0;
	*ret_problem = "the backup's head cannot be read";
	return -EBADMSG;
}
