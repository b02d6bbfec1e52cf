/* image.c: images: push, list, show, rm. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/mem.h"
#include "proto/json.h"

enum {
	PIECE = 1 << 20, /* as the API takes them */
	MIB = 1 << 20,
	UPLOAD_TIMEOUT_MS = 600000, /* the last piece is answered when all was read and synced */
	UPLOAD_RETRY_MS = 60000,
	UPLOAD_TRIES = 20, /* in a row without a byte more */
	POLL_MS = 500,
	WAIT_MS = 1800000,
};

static const char collection[] = "/v1/images/";

/* --- the file --- */

struct image_source {
	const char *path;
	int fd;
	uint64_t size;
	char sha256[65];
	const char *kind; /* as it looks */
};

/* What the first bytes say: an arm64 kernel (Linux Documentation/arch/arm64/booting.rst), a cpio
 * archive or a gzip file, or else a disk. */
static const char *kind_guess(const unsigned char *head, size_t len)
{
	if (len >= 60 && memcmp(head + 56, "ARM\x64", 4) == 0)
		return "kernel";
	if (len >= 6 && (memcmp(head, "070701", 6) == 0 || memcmp(head, "\x1f\x8b", 2) == 0))
		return "initrd";
	return "disk";
}

static int source_open(const char *path, struct image_source *ret)
{
	struct stat st;

	*ret = (struct image_source){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
	if (ret->fd < 0 || fstat(ret->fd, &st) != 0) {
		complain("cannot read %s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		complain("%s is no file", path);
	} else if (st.st_size == 0) {
		complain("%s is empty", path);
	} else {
		ret->size = (uint64_t)st.st_size;
		return EXIT_OK;
	}
	if (ret->fd >= 0)
		close(ret->fd);
	return EXIT_USAGE;
}

/* As much of the piece as there is. */
static ssize_t source_read(const struct image_source *s, uint64_t at, unsigned char *piece)
{
	size_t have = 0;

	while (have < PIECE) {
		ssize_t got = pread(s->fd, piece + have, PIECE - have, (off_t)(at + have));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			complain("cannot read %s: %s", s->path, strerror(errno));
			return -1;
		}
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

static int source_hash(struct image_source *s, bool quiet)
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	unsigned char *piece = mem_alloc(PIECE);
	unsigned char bytes[32];
	struct progress p;
	ssize_t got = 1;

	if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		abort();
	progress_start(&p, "reading (MiB)", s->size / MIB, quiet);
	for (uint64_t at = 0; at < s->size && got > 0; at += (uint64_t)got) {
		got = source_read(s, at, piece);
		if (at == 0 && got > 0)
			s->kind = kind_guess(piece, (size_t)got);
		if (got > 0)
			EVP_DigestUpdate(digest, piece, (size_t)got);
		progress_show(&p, at / MIB);
	}
	progress_end(&p);
	if (EVP_DigestFinal_ex(digest, bytes, NULL) != 1)
		abort();
	EVP_MD_CTX_free(digest);
	free(piece);
	if (got <= 0) {
		if (got == 0)
			complain("%s became shorter while it was read", s->path);
		return EXIT_REFUSED;
	}
	hex_encode(bytes, sizeof(bytes), s->sha256);
	return EXIT_OK;
}

/* --- push --- */

struct push {
	struct invocation *inv;
	struct image_source source;
	const char *name;
	const char *kind;
	struct progress progress;
	unsigned char piece[PIECE];
};

static unsigned copies_held(const Tb__Image *image)
{
	unsigned held = 0;

	for (size_t i = 0; image->status != NULL && i < image->status->n_copies; i++)
		held += image->status->copies[i]->state ==
			TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD;
	return held;
}

static bool copies_all(const Tb__Image *image)
{
	return image->status != NULL && image->status->n_copies > 0 &&
	       copies_held(image) == image->status->n_copies;
}

/* EXIT_OK and the image, or NULL if the cluster does not have it. */
static int image_ask(struct invocation *inv, const char *sha256, Tb__Image **ret)
{
	struct client *client = api_client(inv);
	struct client_response response = {0};
	char *path = api_path(collection, sha256, "");
	int rv = EXIT_USAGE;

	*ret = NULL;
	if (client != NULL) {
		rv = client_send(client, &(struct client_request){.method = "GET", .path = path},
				 &response);
		if (rv != 0)
			rv = api_failure(client, rv);
		else if (response.status == 200)
			rv = api_decode(&tb__image__descriptor, (const char *)response.body.data,
					response.body.len, ret);
		else if (response.status == 404)
			rv = EXIT_OK;
		else
			rv = api_refusal(&response, NULL);
	}
	client_response_clear(&response);
	free(path);
	return rv;
}

static int upload_state(struct push *p, Tb__ImageUpload **ret)
{
	char *path = mem_printf("%s%s:upload?size=%" PRIu64, collection, p->source.sha256,
				p->source.size);
	int rv = api_call(p->inv, &(struct api_request){.path = path, .retry_ms = API_RETRY_MS},
			  &tb__image_upload__descriptor, ret);

	free(path);
	return rv;
}

static char *piece_path(const struct push *p, uint64_t at)
{
	struct buf path = {0};
	char *text;

	buf_printf(&path, "%s%s?kind=%s&size=%" PRIu64 "&offset=%" PRIu64 "&name=", collection,
		   p->source.sha256, p->kind, p->source.size, at);
	url_encode(&path, p->name);
	text = mem_strdup(buf_string(&path));
	buf_free(&path);
	return text;
}

/* One piece. EXIT_OK and where it stands now; *ret_again: it was refused in a way that asking how
 * it stands may mend. */
static int piece_send(struct push *p, uint64_t at, uint64_t *ret_have, bool *ret_done,
		      bool *ret_again)
{
	struct client *client = api_client(p->inv);
	struct client_response response = {0};
	Tb__ImageUpload *upload;
	ssize_t len = source_read(&p->source, at, p->piece);
	char *path = piece_path(p, at);
	int rv = EXIT_REFUSED;

	*ret_again = false;
	if (len > 0 || at == p->source.size) {
		rv = client_send(
			client,
			&(struct client_request){.method = "PUT",
						 .path = path,
						 .content_type = "application/octet-stream",
						 .body = p->piece,
						 .body_len = (size_t)len,
						 .timeout_ms = UPLOAD_TIMEOUT_MS,
						 .retry_ms = UPLOAD_RETRY_MS},
			&response);
		if (rv != 0) {
			rv = api_failure(client, rv);
		} else if (response.status == 200) {
			rv = api_decode(&tb__image_upload__descriptor,
					(const char *)response.body.data, response.body.len,
					&upload);
			if (rv == EXIT_OK) {
				*ret_have = upload->have;
				*ret_done = upload->done;
				tb__image_upload__free_unpacked(upload, NULL);
			}
		} else {
			/* 409 with a field is the model's: the name is taken, and so on. */
			*ret_again = response.status == 409 &&
				     strstr(buf_string(&response.body), "\"errors\"") == NULL;
			rv = *ret_again ? EXIT_REFUSED : api_refusal(&response, NULL);
		}
	}
	client_response_clear(&response);
	free(path);
	return rv;
}

static void pause_ms(unsigned ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000L};

	nanosleep(&pause, NULL);
}

/* From wherever the upload stands, again and again, as long as it gets on. */
static int upload(struct push *p)
{
	uint64_t have = 0;
	uint64_t best = 0;
	unsigned tries = 0;
	bool done = false;
	bool ask = true;
	int rv = EXIT_OK;

	progress_start(&p->progress, "uploading (MiB)", p->source.size / MIB,
		       api_output(p->inv) != OUTPUT_TABLE);
	while (!done && rv == EXIT_OK) {
		Tb__ImageUpload *state;
		bool again = false;

		if (ask) {
			rv = upload_state(p, &state);
			if (rv != EXIT_OK)
				break;
			have = state->have;
			done = state->done;
			tb__image_upload__free_unpacked(state, NULL);
			ask = false;
			continue;
		}
		rv = piece_send(p, have, &have, &done, &again);
		progress_show(&p->progress, have / MIB);
		if (rv == EXIT_OK && (have > best || done)) {
			best = have;
			tries = 0;
		} else if ((rv == EXIT_OK || again) && ++tries < UPLOAD_TRIES) {
			rv = EXIT_OK;
			ask = true;
			best = 0;
			pause_ms(POLL_MS);
		} else if (again || rv == EXIT_OK) {
			progress_end(&p->progress);
			complain("the upload does not get on at %" PRIu64 " of %" PRIu64
				 " bytes; try again later, or with another board (--server)",
				 have, p->source.size);
			rv = EXIT_REFUSED;
		}
	}
	progress_end(&p->progress);
	return rv;
}

static int push_told(const struct push *p, const char *what)
{
	Tb__Image *image;
	struct buf body = {0};
	int rv = image_ask(p->inv, p->source.sha256, &image);

	if (rv != EXIT_OK || image == NULL)
		return rv;
	if (api_output(p->inv) == OUTPUT_JSON) {
		json_encode(&image->base, &body);
		api_print_json(&body);
		buf_free(&body);
	} else if (api_output(p->inv) == OUTPUT_NAME) {
		puts(image->name);
	} else {
		printf("image %s (%s, %" PRIu64 " bytes, SHA-256 %s) %s\n", image->name, p->kind,
		       image->size, image->sha256, what);
	}
	tb__image__free_unpacked(image, NULL);
	return EXIT_OK;
}

static int push_wait(struct push *p)
{
	uint64_t limit = option_duration_ms(p->inv, "timeout", WAIT_MS);
	uint64_t until = clock_boottime_ms() + limit;
	char duration[64];

	for (;;) {
		Tb__Image *image;
		unsigned held;
		size_t all;
		int rv = image_ask(p->inv, p->source.sha256, &image);

		if (rv != EXIT_OK || image == NULL)
			return rv != EXIT_OK ? rv : EXIT_NOT_FOUND;
		if (copies_all(image)) {
			tb__image__free_unpacked(image, NULL);
			return EXIT_OK;
		}
		held = copies_held(image);
		all = image->status != NULL ? image->status->n_copies : 0;
		tb__image__free_unpacked(image, NULL);
		if (clock_boottime_ms() >= until) {
			human_duration(limit, duration);
			complain("waited %s in vain: %u of %zu boards have it (witnessctl image "
				 "show %s)",
				 duration, held, all, p->name);
			return EXIT_NO_QUORUM;
		}
		pause_ms(POLL_MS);
	}
}

/* The file is what the person thinks it is. */
static int push_verified(const struct push *p)
{
	const char *wanted = option_text(p->inv, "sha256");

	if (wanted == NULL || strcasecmp(wanted, p->source.sha256) == 0)
		return EXIT_OK;
	complain("%s has the SHA-256 %s, not the one given; nothing was sent", p->source.path,
		 p->source.sha256);
	return EXIT_REFUSED;
}

/* *ret_needed: bytes are to be sent. */
static int push_known(struct push *p, bool *ret_needed)
{
	const char *name = option_text(p->inv, "name");
	Tb__Image *image;
	int rv = image_ask(p->inv, p->source.sha256, &image);

	*ret_needed = true;
	if (rv != EXIT_OK || image == NULL)
		return rv;
	if (name != NULL && strcmp(name, image->name) != 0) {
		complain("the cluster has these bytes already, as the image %s; use that, or "
			 "remove it first (witnessctl image rm %s)",
			 image->name, image->name);
		rv = EXIT_REFUSED;
	}
	/* Listed, but lost on every board: the bytes are sent once more. */
	*ret_needed = copies_held(image) == 0;
	free((char *)p->name);
	p->name = mem_strdup(image->name);
	p->kind = image->kind == TB__IMAGE_KIND__IMAGE_KIND_KERNEL   ? "kernel"
		  : image->kind == TB__IMAGE_KIND__IMAGE_KIND_INITRD ? "initrd"
								     : "disk";
	tb__image__free_unpacked(image, NULL);
	return rv;
}

static int push_run(struct push *p)
{
	const char *slash = strrchr(p->source.path, '/');
	const char *name = option_text(p->inv, "name");
	bool needed;
	int rv = source_hash(&p->source, api_output(p->inv) != OUTPUT_TABLE);

	if (rv == EXIT_OK)
		rv = push_verified(p);
	if (rv != EXIT_OK)
		return rv;
	if (name == NULL)
		name = slash != NULL ? slash + 1 : p->source.path;
	p->name = mem_strdup(name);
	p->kind = option_given(p->inv, "kind") ? option_text(p->inv, "kind") : p->source.kind;
	rv = push_known(p, &needed);
	if (rv == EXIT_OK && needed)
		rv = upload(p);
	if (rv == EXIT_OK && option_given(p->inv, "wait"))
		rv = push_wait(p);
	return rv == EXIT_OK ? push_told(p, needed ? "pushed" : "is there already") : rv;
}

int run_image_push(struct invocation *inv)
{
	struct push *p = mem_zalloc(sizeof(*p));
	int rv = source_open(inv->args[0], &p->source);

	p->inv = inv;
	if (rv == EXIT_OK) {
		rv = push_run(p);
		close(p->source.fd);
	}
	free((char *)p->name);
	free(p);
	return rv;
}

/* --- list, show, rm --- */

static void size_text(uint64_t bytes, char text[32])
{
	if (bytes < MIB)
		snprintf(text, 32, "%" PRIu64 " KiB", (bytes + 1023) / 1024);
	else
		snprintf(text, 32, "%" PRIu64 " MiB", (bytes + MIB - 1) / MIB);
}

static void copies_text(const Tb__Image *image, char text[64])
{
	size_t all = image->status != NULL ? image->status->n_copies : 0;

	if (all == 0)
		snprintf(text, 64, "unknown");
	else
		snprintf(text, 64, "%u of %zu", copies_held(image), all);
}

static void used_text(const Tb__Image *image, struct buf *out)
{
	for (size_t i = 0; image->status != NULL && i < image->status->n_used_by; i++)
		buf_printf(out, "%s%s", i > 0 ? ", " : "", image->status->used_by[i]);
}

static const char *kind_word(const Tb__Image *image, char word[64])
{
	return json_enum_word(&tb__image_kind__descriptor, (int)image->kind, word);
}

static void image_row(struct grid *g, const Tb__Image *image, bool wide)
{
	struct buf used = {0};
	char kind[64], size[32], copies[64], sum[16], when[32];

	snprintf(sum, sizeof(sum), "%.12s", image->sha256);
	size_text(image->size, size);
	copies_text(image, copies);
	used_text(image, &used);
	human_time(image->created_ms, when);
	if (wide)
		grid_row(g, (const char *[]){image->name, kind_word(image, kind), size, copies,
					     image->sha256, when, image->created_by,
					     buf_string(&used)});
	else
		grid_row(g, (const char *[]){image->name, kind_word(image, kind), size, copies, sum,
					     buf_string(&used)});
	buf_free(&used);
}

static int images_print(struct invocation *inv, const void *message)
{
	static const char *const headers[] = {"NAME",	"KIND",	    ">SIZE", "ON BOARDS",
					      "SHA256", "~USED BY", NULL};
	static const char *const wide[] = {"NAME",    "KIND", ">SIZE",	 "ON BOARDS", "SHA256",
					   "CREATED", "BY",   "USED BY", NULL};
	enum output output = api_output(inv);
	const Tb__ImageList *list = message;
	struct grid *g;

	if (output == OUTPUT_NAME) {
		for (size_t i = 0; i < list->n_items; i++)
			puts(list->items[i]->name);
		return EXIT_OK;
	}
	g = grid_new(output == OUTPUT_WIDE ? wide : headers);
	for (size_t i = 0; i < list->n_items; i++)
		image_row(g, list->items[i], output == OUTPUT_WIDE);
	grid_print(g, "No images.");
	return EXIT_OK;
}

int run_image_list(struct invocation *inv)
{
	return api_show(inv, "/v1/images", &tb__image_list__descriptor, images_print);
}

static void copy_row(struct grid *g, const Tb__Image *image, const Tb__ImageCopy *copy)
{
	char state[64], progress[32] = "", id[32];

	json_enum_word(&tb__image_copy_state__descriptor, (int)copy->state, state);
	snprintf(id, sizeof(id), "board %" PRIu64, copy->node);
	if (copy->state == TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_COPYING && image->size > 0)
		snprintf(progress, sizeof(progress), "%" PRIu64 " %%",
			 (uint64_t)((double)copy->have * 100 / (double)image->size));
	grid_row(g, (const char *[]){copy->board[0] != '\0' ? copy->board : id, state, progress,
				     copy->problem});
}

static int image_print(struct invocation *inv, const void *message)
{
	static const char *const headers[] = {"BOARD", "STATE", ">DONE", "~PROBLEM", NULL};
	const Tb__Image *image = message;
	struct buf used = {0};
	struct grid *g;
	char kind[64], size[32], when[32];

	if (api_output(inv) == OUTPUT_NAME) {
		puts(image->name);
		return EXIT_OK;
	}
	g = grid_new(headers);
	size_text(image->size, size);
	human_time(image->created_ms, when);
	used_text(image, &used);
	field_print("Name", "%s", image->name);
	field_print("Kind", "%s", kind_word(image, kind));
	field_print("Size", "%s (%" PRIu64 " bytes)", size, image->size);
	field_print("SHA-256", "%s", image->sha256);
	field_print("Created", "%s by %s", when, image->created_by);
	field_print("Used by", "%s", used.len > 0 ? buf_string(&used) : "no VM");
	buf_free(&used);
	for (size_t i = 0; image->status != NULL && i < image->status->n_copies; i++)
		copy_row(g, image, image->status->copies[i]);
	fputc('\n', stdout);
	grid_print(g, "Where its copies are is not known: there is no leader to ask.");
	return EXIT_OK;
}

int run_image_show(struct invocation *inv)
{
	char *path = api_path(collection, inv->args[0], "");
	int rv = api_show(inv, path, &tb__image__descriptor, image_print);

	free(path);
	return rv;
}

int run_image_rm(struct invocation *inv)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++) {
		char *path = api_path(collection, inv->args[i], "");
		struct buf body = {0};

		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
		if (rv == EXIT_OK && api_output(inv) == OUTPUT_NAME)
			puts(inv->args[i]);
		else if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
			printf("image %s removed\n", inv->args[i]);
		buf_free(&body);
		free(path);
	}
	return rv;
}
