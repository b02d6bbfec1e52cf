#include "witnessd/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/api.pb-c.h"
#include "proto/json.h"

enum { IDENTITY_FILE_MAX = 64 * 1024 };

static _Thread_local char identity_message[512];

static int identity_fail(int error, const char *path, const char *what, const char **ret_message)
{
	snprintf(identity_message, sizeof(identity_message), "%s: %s: %s", path, what,
		 strerror(-error));
	*ret_message = identity_message;
	return error;
}

static int file_read(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rv = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t got = read(fd, buf_reserve(out, 4096), 4096);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			rv = -errno;
		if (got <= 0)
			break;
		out->len += (size_t)got;
		if (out->len > IDENTITY_FILE_MAX) {
			rv = -EFBIG;
			break;
		}
	}
	close(fd);
	return rv;
}

static int fd_write_all(int fd, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t done = write(fd, data, len);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		data += done;
		len -= (size_t)done;
	}
	return fsync(fd) == 0 ? 0 : -errno;
}

int identity_file_write(const char *dir, const char *name, mode_t mode, const void *data,
			size_t len)
{
	char *path = mem_printf("%s/%s", dir, name);
	char *fresh = mem_printf("%s/%s.new", dir, name);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	int rv = fd < 0 ? -errno : fd_write_all(fd, data, len);
	int dir_fd;

	if (fd >= 0)
		close(fd);
	if (rv == 0 && rename(fresh, path) != 0)
		rv = -errno;
	if (rv == 0) {
		dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd < 0 || fsync(dir_fd) != 0)
			rv = -errno;
		if (dir_fd >= 0)
			close(dir_fd);
	}
	free(path);
	free(fresh);
	return rv;
}

static int identity_read_pem(const char *data_dir, const char *name, char **ret,
			     const char **ret_message)
{
	char *path = mem_printf("%s/%s", data_dir, name);
	struct buf text = {0};
	int rv = file_read(path, &text);

	if (rv == 0)
		*ret = mem_strndup((const char *)text.data, text.len);
	else
		identity_fail(
			rv, path,
			"this board has joined a cluster but the file cannot be read; restore it "
			"or remove the data directory and join again",
			ret_message);
	if (text.data != NULL)
		mem_wipe(text.data, text.cap);
	buf_free(&text);
	free(path);
	return rv;
}

void identity_seed_add(struct identity *id, uint64_t node_id, const char *address)
{
	struct identity_seed *seed = &id->seeds[id->seed_count];

	if (id->seed_count == LIMIT_NODES || strlen(address) >= sizeof(seed->address))
		return;
	seed->node_id = node_id;
	strcpy(seed->address, address);
	id->seed_count++;
}

static int identity_take(struct identity *id, const Tb__LocalIdentity *file)
{
	if (strlen(file->cluster_id) != sizeof(id->cluster_id) - 1 || file->node_id == 0 ||
	    strlen(file->node_name) >= sizeof(id->node_name) ||
	    strlen(file->address) >= sizeof(id->address) ||
	    strlen(file->qnet_address) >= sizeof(id->qnet_address))
		return -EINVAL;
	strcpy(id->cluster_id, file->cluster_id);
	strcpy(id->node_name, file->node_name);
	strcpy(id->address, file->address);
	strcpy(id->qnet_address, file->qnet_address);
	id->node_id = file->node_id;
	for (size_t i = 0; i < file->n_seeds && id->seed_count < LIMIT_NODES; i++)
		identity_seed_add(id, file->seeds[i]->id, file->seeds[i]->address);
	return 0;
}

int identity_load(const char *data_dir, struct identity *ret, const char **ret_message)
{
	char *path = mem_printf("%s/identity.json", data_dir);
	struct identity id = {0};
	struct buf text = {0};
	ProtobufCMessage *file = NULL;
	struct json_error error;
	int rv = file_read(path, &text);

	if (rv == -ENOENT)
		goto out;
	if (rv != 0) {
		identity_fail(rv, path, "cannot read", ret_message);
		goto out;
	}
	rv = json_decode(&tb__local_identity__descriptor, (const char *)text.data, text.len, &file,
			 &error);
	if (rv == 0)
		rv = identity_take(&id, (const Tb__LocalIdentity *)file);
	else
		file = NULL;
	if (rv != 0) {
		identity_fail(
			-EINVAL, path,
			"not the identity of a board; restore it or remove the data directory "
			"and join again",
			ret_message);
		goto out;
	}
	rv = identity_read_pem(data_dir, "node.key", &id.key, ret_message);
	if (rv == 0)
		rv = identity_read_pem(data_dir, "node.crt", &id.cert, ret_message);
	if (rv == 0)
		rv = identity_read_pem(data_dir, "ca.crt", &id.ca_cert, ret_message);
	if (rv == -ENOENT)
		rv = -EINVAL; /* half an identity is not a new board */
	if (rv == 0) {
		*ret = id;
		id = (struct identity){0};
	}
out:
	identity_free(&id);
	if (file != NULL)
		protobuf_c_message_free_unpacked(file, NULL);
	buf_free(&text);
	free(path);
	return rv;
}

int identity_save(const char *data_dir, const struct identity *id, const char **ret_message)
{
	Tb__LocalIdentity file = TB__LOCAL_IDENTITY__INIT;
	Tb__Node seeds[LIMIT_NODES];
	Tb__Node *pointers[LIMIT_NODES];
	struct buf text = {0};
	int rv;

	for (unsigned i = 0; i < id->seed_count; i++) {
		tb__node__init(&seeds[i]);
		seeds[i].id = id->seeds[i].node_id;
		seeds[i].address = (char *)id->seeds[i].address;
		pointers[i] = &seeds[i];
	}
	file.n_seeds = id->seed_count;
	file.seeds = pointers;
	file.cluster_id = (char *)id->cluster_id;
	file.node_id = id->node_id;
	file.node_name = (char *)id->node_name;
	file.address = (char *)id->address;
	file.qnet_address = (char *)id->qnet_address;
	json_encode(&file.base, &text);
	buf_putc(&text, '\n');
	rv = identity_file_write(data_dir, "node.key", 0600, id->key, strlen(id->key));
	if (rv == 0)
		rv = identity_file_write(data_dir, "node.crt", 0644, id->cert, strlen(id->cert));
	if (rv == 0)
		rv = identity_file_write(data_dir, "ca.crt", 0644, id->ca_cert,
					 strlen(id->ca_cert));
	if (rv == 0)
		rv = identity_file_write(data_dir, "identity.json", 0644, (const char *)text.data,
					 text.len);
	if (rv != 0)
		identity_fail(rv, data_dir, "cannot write the board's identity", ret_message);
	buf_free(&text);
	return rv;
}

/* "CLUSTER/BOARD", as written into the log directory. */
static char *log_owner(const struct identity *id)
{
	return mem_printf("%s/%" PRIu64 "\n", id->cluster_id, id->node_id);
}

int identity_log_mark(const char *raft_dir, const struct identity *id, const char **ret_message)
{
	char *owner = log_owner(id);
	int rv = 0;

	if (mkdir(raft_dir, 0700) != 0 && errno != EEXIST)
		rv = -errno;
	if (rv == 0)
		rv = identity_file_write(raft_dir, "owner", 0600, owner, strlen(owner));
	if (rv != 0)
		identity_fail(rv, raft_dir, "cannot make the directory of the log", ret_message);
	free(owner);
	return rv;
}

int identity_log_check(const char *raft_dir, const struct identity *id, const char **ret_message)
{
	char *path = mem_printf("%s/owner", raft_dir);
	char *owner = log_owner(id);
	struct buf text = {0};
	int rv = file_read(path, &text);

	if (rv == 0 && strcmp(buf_string(&text), owner) == 0)
		goto out;
	snprintf(identity_message, sizeof(identity_message),
		 rv == 0 ? "the log in %s is of another cluster or board than identity.json beside "
			   "it; restore what belongs together, or remove the data directory and "
			   "join again"
			 : "there is no log in %s that belongs to identity.json beside it; restore "
			   "it, or remove the data directory and join again",
		 raft_dir);
	*ret_message = identity_message;
	rv = -EINVAL;
out:
	buf_free(&text);
	free(owner);
	free(path);
	return rv;
}

size_t identity_pem_first(const char *pem)
{
	static const char end[] = "-----END CERTIFICATE-----";
	const char *at = strstr(pem, end);
	size_t len = at != NULL ? (size_t)(at - pem) + sizeof(end) - 1 : strlen(pem);

	return len + (pem[len] == '\n');
}

void identity_free(struct identity *id)
{
	if (id->key != NULL)
		mem_wipe(id->key, strlen(id->key));
	free(id->key);
	free(id->cert);
	free(id->next_cert);
	free(id->ca_cert);
	*id = (struct identity){0};
}
