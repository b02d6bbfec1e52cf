/* image_keeper.c: what this board does about each image.
 *
 *   state      the file in images/             goes to
 *   MISSING    none                            RECEIVING (upload, or a copy that is wanted)
 *   UNCHECKED  whole, not looked at since boot CHECKING
 *   CHECKING   whole, a worker hashes it       HELD, DAMAGED
 *   HELD       whole and right                 UNCHECKED (it is another file suddenly), MISSING
 *   DAMAGED    whole and wrong                 RECEIVING (a copy takes its place)
 *
 * Beside it an image may be receiving (image_receive.h). One that is neither listed by the model
 * nor on its way is dropped after a grace. */
#include "witnessd/image_keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/list.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/image_copy.h"
#include "witnessd/image_memory.h"
#include "witnessd/image_receive.h"
#include "witnessd/image_store.h"

enum {
	KEEPER_TICK_MS = 1000,
	KEEPER_RETRY_MS = 10000, /* after every source has failed */
	KEEPER_DIAL_MS = 15000,
	KEEPER_UPLOAD_MS = 60000, /* an upload that stood still so long gives way to a copy */
	KEEPER_PART_MS = 24 * 3600 * 1000, /* and is dropped after so long */
	KEEPER_BOARDS = 16,
};

enum keep_state { KEEP_MISSING, KEEP_UNCHECKED, KEEP_CHECKING, KEEP_HELD, KEEP_DAMAGED };

struct image {
	struct list link; /* in keeper.images */
	struct image_keeper *keeper;
	char sha256[IMAGE_NAME + 1];
	uint64_t size; /* as the model or the upload says; 0: not known */
	bool listed;
	bool was_listed; /* before this reading of the model */
	bool asked; /* a VM waits for it: it is checked first */
	bool dropping; /* a worker takes its files away */
	enum keep_state state;
	struct image_identity identity; /* HELD: of the file that was right */
	uint64_t part; /* bytes of a part while nothing receives */
	uint64_t part_size; /* of the image that the part is of, as who began it said */
	char problem[IMAGE_PROBLEM];
	uint64_t uploaded_ms; /* somebody has asked for its upload, or moved it */
	uint64_t touched_ms; /* left the model, became whole, or its upload moved */
	/* One at a time: */
	struct image_receive *receive; /* NULL: nothing is on its way */
	bool receiving_gone; /* it was closed, and a worker still has it */
	struct image_copy *copy; /* the source of `receive`; NULL: uploads, or dialing */
	uint64_t dial; /* 0: none */
	uint64_t dialed_ms;
	uint64_t source; /* board that is asked */
	unsigned tried; /* sources since the last success or pause */
	unsigned next_source;
	uint64_t retry_ms;
};

/* An image of which a worker hashes or drops the file. */
struct keeper_work {
	uv_work_t work;
	struct image_keeper *keeper;
	char sha256[IMAGE_NAME + 1];
	struct image_check *check; /* NULL: to drop */
	int rv;
};

struct keeper_serve {
	struct list link;
	struct image_keeper *keeper;
	struct image_serve *serve;
};

struct image_keeper {
	struct image_keeper_config config;
	struct image_store *store;
	struct image_memory *memory;
	struct list images;
	struct list serves;
	unsigned serve_count;
	uint64_t boards[KEEPER_BOARDS];
	size_t board_count;
	bool modelled; /* the model has spoken */
	bool newest; /* and what it did not list is not there for certain */
	bool hosts;
	bool checking; /* a worker has a check */
	bool progress; /* bytes came since the last report */
	uint64_t last_dial;
	uv_timer_t timer;
	/* What must end before `closed`. */
	unsigned pending;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void keeper_go(struct image_keeper *k);

/* --- the table --- */

static struct image *image_find(struct image_keeper *k, const char *sha256)
{
	list_for_each (at, &k->images) {
		struct image *image = list_entry(at, struct image, link);

		if (strcmp(image->sha256, sha256) == 0)
			return image;
	}
	return NULL;
}

static struct image *image_add(struct image_keeper *k, const char *sha256)
{
	struct image *image = image_find(k, sha256);

	if (image != NULL)
		return image;
	image = mem_zalloc(sizeof(*image));
	image->keeper = k;
	snprintf(image->sha256, sizeof(image->sha256), "%s", sha256);
	image->touched_ms = uv_now(k->config.loop);
	list_append(&k->images, &image->link);
	return image;
}

static void image_free(struct image *image)
{
	list_remove(&image->link);
	free(image);
}

static void keeper_changed(struct image_keeper *k)
{
	if (!k->closing)
		k->config.changed(k->config.arg);
}

static void image_problem(struct image *image, const char *problem)
{
	snprintf(image->problem, sizeof(image->problem), "%s", problem);
}

/* The file of the image as it lies there. */
static int image_look(struct image *image, struct image_identity *ret)
{
	int fd;
	int rv = image_file_open(image->keeper->store, image->sha256, &fd, ret);

	if (rv == 0)
		close(fd);
	return rv;
}

static void image_held(struct image *image, const struct image_identity *identity)
{
	image->state = KEEP_HELD;
	image->identity = *identity;
	image->problem[0] = '\0';
	image->tried = 0;
	image->retry_ms = 0;
	image->part = 0;
	image_memory_add(image->keeper->memory, image->sha256, identity);
	keeper_changed(image->keeper);
}

/* --- closing --- */

static void keeper_freed(uv_handle_t *handle)
{
	struct image_keeper *k = handle->data;
	void (*closed)(void *arg) = k->closed;
	void *arg = k->closed_arg;

	list_for_each_safe (at, &k->images)
		image_free(list_entry(at, struct image, link));
	image_memory_free(k->memory);
	image_store_close(k->store);
	free((char *)k->config.data_dir);
	free((char *)k->config.run_dir);
	free(k);
	closed(arg);
}

static void keeper_less(struct image_keeper *k)
{
	k->pending--;
	if (k->closing && k->pending == 0)
		uv_close((uv_handle_t *)&k->timer, keeper_freed);
}

/* --- receiving --- */

static void receive_end(struct image *image)
{
	struct image_receive *receive = image->receive;

	image_copy_close(image->copy);
	image->copy = NULL;
	image->dial = 0;
	image->receive = NULL;
	if (receive == NULL)
		return;
	image->part = image_receive_have(receive);
	image->receiving_gone = true;
	image->touched_ms = uv_now(image->keeper->config.loop);
	image_receive_close(receive);
}

static void receive_over(void *arg, int error, const char *message)
{
	struct image *image = arg;
	struct image_keeper *k = image->keeper;
	struct image_identity identity;
	bool upload = image->copy == NULL;

	receive_end(image);
	if (error == 0 && image_look(image, &identity) == 0) {
		log_info("image-held",
			 "image %.12s is here, %" PRIu64 " bytes, and its SHA-256 is right",
			 image->sha256, identity.size);
		image_held(image, &identity);
		return;
	}
	/* What a copy met is told by copy_over. */
	if (upload)
		image_problem(image, message);
	keeper_changed(k);
}

static void receive_gone(void *arg)
{
	struct image *image = arg;

	image->receiving_gone = false;
	keeper_less(image->keeper);
	if (!image->keeper->closing)
		keeper_go(image->keeper);
}

static const struct image_receive_events receive_events = {.over = receive_over,
							   .gone = receive_gone};

static void receive_begin(struct image *image)
{
	struct image_keeper *k = image->keeper;

	k->pending++;
	image->part_size = image->size;
	image->receive = image_receive_new(k->config.loop, k->store, image->sha256, image->size,
					   image->part, &receive_events, image);
}

/* --- copies of other boards' --- */

static bool image_whole(const struct image *image)
{
	return image->state != KEEP_MISSING && image->state != KEEP_DAMAGED;
}

static bool image_wanted(const struct image *image)
{
	return image->listed && !image_whole(image) &&
	       (image->keeper->hosts || image->state == KEEP_DAMAGED);
}

/* `mine`: this board cannot take it, whoever sends it. */
static void copy_failed(struct image *image, const char *why, bool mine)
{
	struct image_keeper *k = image->keeper;
	char problem[IMAGE_PROBLEM];

	if (mine)
		snprintf(problem, sizeof(problem), "%s", why);
	else
		snprintf(problem, sizeof(problem), "board %" PRIu64 ": %s", image->source, why);
	if (strcmp(problem, image->problem) != 0)
		log_warning("image-copy", "image %.12s cannot be copied: %s", image->sha256,
			    problem);
	image_problem(image, problem);
	if (mine || ++image->tried >= k->board_count) {
		image->tried = 0;
		image->retry_ms = uv_now(k->config.loop) + KEEPER_RETRY_MS;
	}
	receive_end(image);
	keeper_changed(k);
	keeper_go(k);
}

static void copy_over(void *arg, int error, const char *why)
{
	/* Success comes by receive_over as well, after this. */
	if (error != 0)
		copy_failed(arg, why, error == -ENOSPC || error == -EIO);
}

static void copy_begin(struct image *image)
{
	struct image_keeper *k = image->keeper;

	image->source = k->boards[image->next_source++ % k->board_count];
	image->dial = ++k->last_dial;
	image->dialed_ms = uv_now(k->config.loop);
	receive_begin(image);
	k->config.dial(k->config.arg, image->dial, image->source);
}

void image_keeper_dialed(struct image_keeper *k, uint64_t dial_id, int fd_or_error)
{
	struct image *image = NULL;

	list_for_each (at, &k->images) {
		struct image *each = list_entry(at, struct image, link);

		if (each->dial == dial_id && dial_id != 0)
			image = each;
	}
	if (image == NULL || k->closing) {
		if (fd_or_error >= 0)
			close(fd_or_error);
		return;
	}
	image->dial = 0;
	if (fd_or_error < 0) {
		copy_failed(image, strerror(-fd_or_error), false);
		return;
	}
	log_info("image-copy", "copying image %.12s from board %" PRIu64, image->sha256,
		 image->source);
	image->copy = image_copy_new(k->config.loop, image->source, fd_or_error, image->sha256,
				     image->size, image->receive, copy_over, image);
	if (image->copy == NULL)
		copy_failed(image, "the link cannot be used", false);
}

static unsigned copies(const struct image_keeper *k)
{
	unsigned count = 0;

	list_for_each (at, &k->images) {
		const struct image *image = list_entry(at, struct image, link);

		count += image->dial != 0 || image->copy != NULL;
	}
	return count;
}

static void image_drop(struct image *image, const char *why);

/* Of an upload that named another size than the model has. */
static bool part_is_wrong(const struct image *image)
{
	return image->part > 0 && image->part_size != image->size && image->state == KEEP_MISSING;
}

static void keeper_copy(struct image_keeper *k)
{
	uint64_t now = uv_now(k->config.loop);

	list_for_each (at, &k->images) {
		struct image *image = list_entry(at, struct image, link);

		if (copies(k) >= IMAGE_COPIES_MAX)
			return;
		if (!image_wanted(image) || image->receive != NULL || image->receiving_gone ||
		    image->dropping || image->retry_ms > now)
			continue;
		if (part_is_wrong(image))
			image_drop(image, "its part is of an upload with another size");
		else if (k->board_count > 0)
			copy_begin(image);
	}
}

/* --- checks and drops --- */

static void check_over(struct image *image, const struct image_check *check, int rv)
{
	struct image_keeper *k = image->keeper;

	if (rv == 0) {
		image_held(image, image_check_identity(check));
		return;
	}
	image->state = KEEP_DAMAGED;
	image_memory_forget(k->memory, image->sha256);
	image_problem(image, rv == -EBADMSG
				     ? "its bytes are not what they were: its SHA-256 is wrong"
				     : "its file cannot be read");
	log_error("image-damaged", "image %.12s on this board is damaged (%s); %s", image->sha256,
		  image->problem,
		  image->listed ? "a copy of another board takes its place" : "it is dropped");
	keeper_changed(k);
}

static void work_done(struct keeper_work *w)
{
	struct image_keeper *k = w->keeper;

	image_check_end(w->check);
	free(w);
	keeper_less(k);
}

static void check_work(uv_work_t *work)
{
	struct keeper_work *w = work->data;

	w->rv = image_check_step(w->check);
}

static void check_after(uv_work_t *work, int status)
{
	struct keeper_work *w = work->data;
	struct image_keeper *k = w->keeper;
	struct image *image = image_find(k, w->sha256);

	(void)status;
	if (w->rv == 1 && !k->closing) {
		if (uv_queue_work(k->config.loop, &w->work, check_work, check_after) != 0)
			abort();
		return;
	}
	k->checking = false;
	if (image != NULL && image->state == KEEP_CHECKING && !k->closing)
		check_over(image, w->check, w->rv);
	work_done(w);
	if (!k->closing)
		keeper_go(k);
}

static struct keeper_work *work_new(struct image *image)
{
	struct keeper_work *w = mem_zalloc(sizeof(*w));

	w->keeper = image->keeper;
	w->work.data = w;
	memcpy(w->sha256, image->sha256, sizeof(w->sha256));
	image->keeper->pending++;
	return w;
}

static void check_begin(struct image *image)
{
	struct image_keeper *k = image->keeper;
	struct keeper_work *w;
	struct image_check *check;
	int rv = image_check_begin(k->store, image->sha256, &check);

	image->state = KEEP_CHECKING;
	if (rv != 0) {
		check_over(image, NULL, rv);
		return;
	}
	w = work_new(image);
	w->check = check;
	k->checking = true;
	if (uv_queue_work(k->config.loop, &w->work, check_work, check_after) != 0)
		abort();
}

/* Those that VMs wait for first. */
static void keeper_check(struct image_keeper *k)
{
	struct image *first = NULL;

	if (k->checking)
		return;
	list_for_each (at, &k->images) {
		struct image *image = list_entry(at, struct image, link);

		if (image->state == KEEP_UNCHECKED &&
		    (first == NULL || (image->asked && !first->asked)))
			first = image;
	}
	if (first != NULL)
		check_begin(first);
}

static void drop_work(uv_work_t *work)
{
	struct keeper_work *w = work->data;

	w->rv = image_store_drop(w->keeper->store, w->sha256);
}

/* It may have been listed again meanwhile. */
static void drop_after(uv_work_t *work, int status)
{
	struct keeper_work *w = work->data;
	struct image_keeper *k = w->keeper;
	struct image *image = image_find(k, w->sha256);

	(void)status;
	image->dropping = false;
	if (!image->listed)
		image_free(image);
	work_done(w);
	if (!k->closing)
		keeper_go(k);
}

/* Is it time to forget this one? */
static bool image_due(const struct image *image, uint64_t now_ms)
{
	uint64_t grace = image->state == KEEP_MISSING ? KEEPER_PART_MS : IMAGE_GRACE_MS;

	return !image->listed && image->receive == NULL && !image->receiving_gone &&
	       !image->dropping && image->state != KEEP_CHECKING &&
	       now_ms - image->touched_ms >= grace;
}

static void image_drop(struct image *image, const char *why)
{
	struct image_keeper *k = image->keeper;
	struct keeper_work *w = work_new(image);

	log_info("image-dropped", "image %.12s is dropped: %s", image->sha256, why);
	image_memory_forget(k->memory, image->sha256);
	image->state = KEEP_MISSING;
	image->part = 0;
	image->dropping = true;
	if (uv_queue_work(k->config.loop, &w->work, drop_work, drop_after) != 0)
		abort();
}

/* --- the whole --- */

static void keeper_go(struct image_keeper *k)
{
	if (k->closing)
		return;
	keeper_check(k);
	if (k->modelled)
		keeper_copy(k);
}

static void image_tick(struct image *image, uint64_t now_ms)
{
	if (image->copy != NULL)
		image_copy_tick(image->copy, now_ms);
	else if (image->dial != 0 && now_ms - image->dialed_ms > KEEPER_DIAL_MS)
		copy_failed(image, "no answer", false);
	else if (image->receive != NULL && image->dial == 0 &&
		 !image_receive_busy(image->receive) &&
		 now_ms - image->uploaded_ms > KEEPER_UPLOAD_MS)
		receive_end(image);
}

void image_keeper_tick(struct image_keeper *k, uint64_t now_ms)
{
	bool progress = copies(k) > 0;

	list_for_each_safe (at, &k->images) {
		struct image *image = list_entry(at, struct image, link);

		image_tick(image, now_ms);
		if (k->newest && image_due(image, now_ms))
			image_drop(image, "it is no longer listed");
	}
	keeper_go(k);
	if (progress)
		keeper_changed(k);
}

static void keeper_timer(uv_timer_t *timer)
{
	image_keeper_tick(timer->data, uv_now(timer->loop));
}

void image_keeper_model(struct image_keeper *k, const struct image_keeper_model *m)
{
	uint64_t now = uv_now(k->config.loop);
	bool changed = false;

	if (k->closing)
		return;
	k->modelled = true;
	k->newest = m->newest;
	k->hosts = m->hosts;
	k->board_count = m->board_count < KEEPER_BOARDS ? m->board_count : KEEPER_BOARDS;
	memcpy(k->boards, m->boards, k->board_count * sizeof(k->boards[0]));
	list_for_each (at, &k->images) {
		struct image *image = list_entry(at, struct image, link);

		if (image->listed)
			image->touched_ms = now;
		image->was_listed = image->listed;
		image->listed = false;
	}
	for (size_t i = 0; i < m->image_count; i++) {
		struct image *image;

		if (!image_name_ok(m->images[i]->sha256))
			continue;
		image = image_add(k, m->images[i]->sha256);
		image->listed = true;
		image->size = m->images[i]->size;
	}
	/* Those that are listed are reported. */
	list_for_each (at, &k->images) {
		const struct image *image = list_entry(at, struct image, link);

		changed |= image->listed != image->was_listed;
	}
	if (changed)
		keeper_changed(k);
	keeper_go(k);
}

/* --- what others ask --- */

static Tb__ImageCopyState report_state(const struct image *image)
{
	if (image_whole(image))
		return TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD;
	if (image->receive != NULL)
		return TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_COPYING;
	return image->state == KEEP_DAMAGED ? TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_DAMAGED
					    : TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_MISSING;
}

static uint64_t image_have(const struct image *image)
{
	if (image_whole(image))
		return image->size;
	return image->receive != NULL ? image_receive_have(image->receive) : image->part;
}

static Tb__ImageReport *report_row(const struct image *image)
{
	Tb__ImageReport *row = mem_alloc(sizeof(*row));

	tb__image_report__init(row);
	row->sha256 = mem_strdup(image->sha256);
	row->state = report_state(image);
	row->have = image_have(image);
	row->problem = mem_strdup(image->problem);
	return row;
}

size_t image_keeper_report(struct image_keeper *k, Tb__ImageReport ***ret)
{
	size_t count = 0;

	*ret = NULL;
	list_for_each (at, &k->images) {
		const struct image *image = list_entry(at, struct image, link);

		if (!image->listed)
			continue;
		*ret = mem_realloc(*ret, (count + 1) * sizeof(**ret));
		(*ret)[count++] = report_row(image);
	}
	return count;
}

/* Is the open file still the one that was found right? Then it is the caller's. */
static int image_open_held(struct image *image, int *ret_fd)
{
	struct image_identity identity;
	int fd;
	int rv = image_file_open(image->keeper->store, image->sha256, &fd, &identity);

	if (rv == 0 && image_identity_same(&identity, &image->identity)) {
		*ret_fd = fd;
		return 0;
	}
	if (rv == 0)
		close(fd);
	log_warning("image-changed", "the file of image %.12s was %s by somebody else",
		    image->sha256, rv == 0 ? "changed" : "taken away");
	image->state = rv == 0 ? KEEP_UNCHECKED : KEEP_MISSING;
	image_memory_forget(image->keeper->memory, image->sha256);
	keeper_changed(image->keeper);
	return -EAGAIN;
}

static void file_problem(const struct image *image, char *problem, size_t size)
{
	uint64_t have = image_have(image) >> 20;
	uint64_t all = image->size >> 20;

	if (image_whole(image))
		snprintf(problem, size, "image %.12s is being checked", image->sha256);
	else if (image->receive != NULL)
		snprintf(problem, size,
			 "image %.12s is being copied: %" PRIu64 " of %" PRIu64 " MiB",
			 image->sha256, have, all);
	else
		snprintf(problem, size, "image %.12s is not here: %s", image->sha256,
			 image->problem[0] != '\0' ? image->problem : "no other board has it");
}

int image_keeper_file(struct image_keeper *k, const char *sha256, int *ret_fd, char *ret_problem,
		      size_t problem_size)
{
	struct image *image = image_find(k, sha256);

	if (image == NULL || (!image->listed && k->modelled)) {
		snprintf(ret_problem, problem_size, "the cluster has no image %.12s", sha256);
		return -ENOENT;
	}
	if (image->state == KEEP_HELD && image_open_held(image, ret_fd) == 0)
		return 0;
	image->asked = true;
	keeper_go(k);
	file_problem(image, ret_problem, problem_size);
	return -EAGAIN;
}

/* --- uploads --- */

/* A digest has one size. What is here of the image is not touched by one who names another. */
static bool upload_disagrees(const struct image *image, uint64_t size, char message[IMAGE_PROBLEM])
{
	bool known = image->listed || image_whole(image);
	bool part = image->receive != NULL || image->receiving_gone || image->part > 0;

	if (known && image->size != size) {
		snprintf(message, IMAGE_PROBLEM,
			 "the image with this SHA-256 has %" PRIu64 " bytes, and not %" PRIu64
			 ": give size=%" PRIu64,
			 image->size, size, image->size);
		return true;
	}
	if (!known && part && image->part_size != size) {
		snprintf(message, IMAGE_PROBLEM,
			 "%" PRIu64 " bytes of this image are here, of an upload with size=%" PRIu64
			 ", and not size=%" PRIu64 ": go on with that size, or upload it to "
			 "another board; what nobody goes on with is dropped after %d hours",
			 image_have(image), image->part_size, size, KEEPER_PART_MS / 3600000);
		return true;
	}
	return false;
}

/* Is there nothing to do but to say how it stands? One of which all bytes are here is to be
 * finished. */
static bool upload_asks(const struct image *image, uint64_t size, size_t len)
{
	return len == 0 && (image == NULL || (image->receive == NULL && image->part < size));
}

void image_keeper_upload(struct image_keeper *k, const char *sha256, uint64_t size, uint64_t offset,
			 const void *bytes, size_t len, image_keeper_uploaded done, void *arg)
{
	struct image *image = image_find(k, sha256);
	char message[IMAGE_PROBLEM];

	if (k->closing) {
		done(arg, -ESHUTDOWN, "this board is stopping", 0, false);
	} else if (!image_name_ok(sha256) || size == 0 || len > IMAGE_UPLOAD_MAX) {
		done(arg, -EINVAL,
		     "an image has a SHA-256 of 64 lower-case hex digits and at least one byte", 0,
		     false);
	} else if (image != NULL && upload_disagrees(image, size, message)) {
		done(arg, -EEXIST, message, 0, false);
	} else if (image != NULL && image_whole(image)) {
		image->touched_ms = uv_now(k->config.loop);
		done(arg, 0, "", size, image->state == KEEP_HELD);
	} else if (image != NULL && (image->copy != NULL || image->dial != 0)) {
		done(arg, -EBUSY, "this board is copying that image from another board", 0, false);
	} else if (image != NULL && (image->receiving_gone || image->dropping)) {
		done(arg, -EBUSY, "an attempt of before is just ending", 0, false);
	} else if (upload_asks(image, size, len)) {
		done(arg, 0, "", image != NULL ? image->part : 0, false);
	} else {
		image = image_add(k, sha256);
		image->size = size;
		image->touched_ms = image->uploaded_ms = uv_now(k->config.loop);
		if (image->receive == NULL)
			receive_begin(image);
		image_receive_put(image->receive, offset, bytes, len, done, arg);
	}
}

/* --- other boards --- */

static void serve_gone(void *arg)
{
	struct keeper_serve *s = arg;
	struct image_keeper *k = s->keeper;

	list_remove(&s->link);
	free(s);
	k->serve_count--;
	keeper_less(k);
}

static void serve_refuse(struct host_link *l, const char *why)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ImageHead head = TB__IMAGE_HEAD__INIT;

	head.error = (char *)why;
	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_HEAD;
	frame.image_head = &head;
	host_link_send(l, &frame);
	host_link_close(l, NULL);
}

void image_keeper_serve(struct image_keeper *k, struct host_link *l, const Tb__ImageGet *get)
{
	struct image *image = image_name_ok(get->sha256) ? image_find(k, get->sha256) : NULL;
	struct keeper_serve *s;
	int fd;

	if (image == NULL || image->state == KEEP_MISSING || image->state == KEEP_DAMAGED) {
		serve_refuse(l, "it has no good copy of the image");
	} else if (image->state != KEEP_HELD || image_open_held(image, &fd) != 0) {
		image->asked = true;
		keeper_go(k);
		serve_refuse(l, "its own copy is being checked");
	} else if (k->closing || k->serve_count >= IMAGE_SERVES_MAX ||
		   get->offset >= image->identity.size) {
		close(fd);
		serve_refuse(l, get->offset >= image->identity.size ? "the image ends before that"
								    : "it serves too many already");
	} else {
		s = mem_zalloc(sizeof(*s));
		s->keeper = k;
		list_append(&k->serves, &s->link);
		k->serve_count++;
		k->pending++;
		s->serve = image_serve_new(k->config.loop, l, fd, image->identity.size, get->offset,
					   serve_gone, s);
	}
}

/* --- life --- */

static void found_one(void *arg, const struct image_found *found)
{
	struct image_keeper *k = arg;
	struct image *image = image_add(k, found->sha256);
	struct image_identity identity;

	if (!found->whole) {
		image->part = found->have;
		image->part_size = found->size;
		return;
	}
	image->state = KEEP_UNCHECKED;
	image->size = found->size;
	if (image_look(image, &identity) == 0 &&
	    image_memory_knows(k->memory, image->sha256, &identity)) {
		image->state = KEEP_HELD;
		image->identity = identity;
	}
}

int image_keeper_new(const struct image_keeper_config *config, struct image_keeper **ret,
		     const char **ret_message)
{
	struct image_keeper *k = mem_zalloc(sizeof(*k));
	char *memory = config->run_dir != NULL ? mem_printf("%s/images", config->run_dir) : NULL;
	int rv = image_store_open(config->data_dir, config->space, &k->store, ret_message);

	list_init(&k->images);
	list_init(&k->serves);
	if (rv != 0) {
		free(memory);
		free(k);
		return rv;
	}
	k->config = *config;
	k->config.data_dir = mem_strdup(config->data_dir);
	k->config.run_dir = config->run_dir != NULL ? mem_strdup(config->run_dir) : NULL;
	k->memory = image_memory_new(memory);
	free(memory);
	rv = image_store_list(k->store, found_one, k);
	if (rv != 0)
		log_error("image-store", "the image store cannot be read: %s", strerror(-rv));
	uv_timer_init(config->loop, &k->timer);
	k->timer.data = k;
	uv_timer_start(&k->timer, keeper_timer, KEEPER_TICK_MS, KEEPER_TICK_MS);
	*ret = k;
	return 0;
}

void image_keeper_close(struct image_keeper *k, void (*closed)(void *arg), void *arg)
{
	k->closing = true;
	uv_timer_stop(&k->timer);
	k->closed = closed;
	k->closed_arg = arg;
	k->pending++;
	list_for_each (at, &k->images)
		receive_end(list_entry(at, struct image, link));
	list_for_each_safe (at, &k->serves)
		image_serve_close(list_entry(at, struct keeper_serve, link)->serve);
	keeper_less(k);
}
