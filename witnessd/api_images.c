/* api_images.c: the images: what the model lists, uploads to this board's store, removal. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

/* --- reading --- */

struct images {
	Tb__Image **items; /* owned */
	size_t count;
	bool one; /* the answer is the first, and not a list */
};

static void images_free(void *state)
{
	struct images *all = state;

	for (size_t i = 0; i < all->count; i++)
		tb__image__free_unpacked(all->items[i], NULL);
	free(all->items);
	free(all);
}

static void images_add(struct images *all, Tb__Image *image)
{
	all->items = mem_realloc(all->items, (all->count + 1) * sizeof(*all->items));
	tb__image_status__free_unpacked(image->status, NULL);
	image->status = mem_alloc(sizeof(*image->status));
	tb__image_status__init(image->status);
	all->items[all->count++] = image;
}

static int image_visit(void *arg, const Tb__Image *row)
{
	images_add(arg, (Tb__Image *)message_copy(&row->base));
	return 0;
}

static Tb__Image *images_find(const struct images *all, const char *sha256)
{
	for (size_t i = 0; i < all->count; i++)
		if (strcmp(all->items[i]->sha256, sha256) == 0)
			return all->items[i];
	return NULL;
}

static void image_used(const struct images *all, const char *sha256, const char *vm)
{
	Tb__Image *image = images_find(all, sha256);
	Tb__ImageStatus *status = image != NULL ? image->status : NULL;

	/* A VM may use an image twice. */
	if (status == NULL ||
	    (status->n_used_by > 0 && strcmp(status->used_by[status->n_used_by - 1], vm) == 0))
		return;
	status->used_by =
		mem_realloc(status->used_by, (status->n_used_by + 1) * sizeof(*status->used_by));
	status->used_by[status->n_used_by++] = mem_strdup(vm);
}

static int vm_visit(void *arg, const Tb__Vm *vm)
{
	const struct images *all = arg;

	image_used(all, vm->config->kernel, vm->name);
	image_used(all, vm->config->initrd, vm->name);
	for (size_t i = 0; i < vm->config->n_disks; i++)
		image_used(all, vm->config->disks[i]->image, vm->name);
	return 0;
}

/* What the leader says of the copies. */
static void images_fill(struct images *all, const Tb__PeerAnswer *answer)
{
	for (size_t i = 0; answer != NULL && i < answer->n_images; i++) {
		Tb__ImageRow *row = answer->images[i];
		Tb__Image *image = images_find(all, row->sha256);
		Tb__ImageStatus *said;

		if (image == NULL || row->status == NULL)
			continue;
		said = (Tb__ImageStatus *)message_copy(&row->status->base);
		image->status->copies = said->copies;
		image->status->n_copies = said->n_copies;
		said->copies = NULL;
		said->n_copies = 0;
		tb__image_status__free_unpacked(said, NULL);
	}
}

static void images_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	struct images *all = call->state;
	Tb__ImageList list = TB__IMAGE_LIST__INIT;

	/* Without a leader nobody knows of the copies: none are shown. */
	images_fill(all, error == 0 ? answer : NULL);
	store_vms(api_store(call->api), vm_visit, all);
	list.items = all->items;
	list.n_items = all->count;
	if (all->one)
		api_answer_revision(call, &all->items[0]->base, all->items[0]->revision, NULL);
	else
		api_answer_message(call, &list.base);
}

static void images_ask(struct api_call *call)
{
	const struct images *all = call->state;
	Tb__ImageQuery images = TB__IMAGE_QUERY__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	if (all->one) {
		images.n_sha256 = 1;
		images.sha256 = &all->items[0]->sha256;
	}
	query.what_case = TB__PEER_QUERY__WHAT_IMAGES;
	query.images = &images;
	api_query(call, &query, images_answered);
}

static struct images *images_new(struct api_call *call)
{
	struct images *all = mem_zalloc(sizeof(*all));

	call->state = all;
	call->state_free = images_free;
	return all;
}

void api_images_list(struct api_call *call)
{
	struct images *all = images_new(call);

	if (store_images(api_store(call->api), image_visit, all) != 0)
		api_store_failed(call);
	else
		images_ask(call);
}

/* By name or SHA-256. Not 0: the call is over. */
static int image_find(struct api_call *call, Tb__Image **ret)
{
	struct store *s = api_store(call->api);
	int rv = store_image_get(s, call->arg, ret);

	if (rv == -ENOENT)
		rv = store_image_find(s, call->arg, ret);
	if (rv == -ENOENT)
		api_problem(call, 404, "GET /v1/images lists them", "there is no image \"%s\"",
			    call->arg);
	else if (rv != 0)
		api_store_failed(call);
	return rv;
}

void api_image_get(struct api_call *call)
{
	struct images *all;
	Tb__Image *image;

	if (image_find(call, &image) != 0)
		return;
	all = images_new(call);
	all->one = true;
	images_add(all, image);
	images_ask(call);
}

/* --- uploads --- */

static void upload_answer(struct api_call *call, uint64_t have, bool done, Tb__Image *image)
{
	Tb__ImageUpload upload = TB__IMAGE_UPLOAD__INIT;

	upload.sha256 = call->arg;
	upload.size = api_param(call, "size")->number;
	upload.have = have;
	upload.done = done;
	upload.image = image;
	api_answer_message(call, &upload.base);
}

static void upload_failed(struct api_call *call, int error, const char *message)
{
	switch (error) {
	case -ERANGE:
		api_problem(call, 409, "GET .../{sha256}:upload says where it stands", "%s",
			    message);
		break;
	case -EAGAIN:
		api_problem(call, 409, "begin again at offset 0", "%s", message);
		break;
	case -EBUSY:
		api_problem(call, 409, "try again in a few seconds", "%s", message);
		break;
	case -EEXIST:
		api_problem_field(call, 409, "size", message);
		break;
	case -EBADMSG:
	case -EINVAL:
		api_problem_field(call, 422, "sha256", message);
		break;
	case -ENOSPC:
		api_problem(call, 507, NULL, "%s", message);
		break;
	case -ESHUTDOWN:
	case -ECANCELED:
		api_problem(call, 503, "ask another board", "%s", message);
		break;
	default:
		api_problem(call, 500, "look at the log of witnessd on this board", "%s", message);
	}
}

static void image_added(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Image *image;

	(void)result;
	if (image_find(call, &image) != 0)
		return;
	upload_answer(call, image->size, true, image);
	tb__image__free_unpacked(image, NULL);
}

static Tb__Command *add_command(struct api_call *call)
{
	const struct api_value *name = api_param(call, "name");
	Tb__Command *command = api_command(call, 0);
	Tb__Image *image = mem_alloc(sizeof(*image));

	tb__image__init(image);
	image->sha256 = mem_strdup(call->arg);
	image->name = mem_strdup(name->set ? name->text : "");
	image->kind = (Tb__ImageKind)api_param(call, "kind")->number;
	image->size = api_param(call, "size")->number;
	command->op_case = TB__COMMAND__OP_IMAGE_ADD;
	command->image_add = mem_alloc(sizeof(*command->image_add));
	tb__image_add__init(command->image_add);
	command->image_add->image = image;
	return command;
}

static void image_uploaded(struct api_call *call, int error, const char *message, uint64_t have,
			   bool done)
{
	if (error != 0)
		upload_failed(call, error, message);
	else if (!done)
		upload_answer(call, have, false, NULL);
	else
		api_propose(call, add_command(call), image_added);
}

/* What the model would say to the whole image is said before its first byte is taken. */
void api_image_put(struct api_call *call)
{
	uint64_t offset = api_param(call, "offset")->number;
	struct store *s;

	if (!api_param(call, "size")->set) {
		api_problem_field(call, 422, "size", "give the size of the whole image in bytes");
		return;
	}
	if (offset == 0) {
		if (api_rehearse(call, add_command(call), &s) != 0)
			return;
		store_close(s);
	}
	api_upload(call, call->arg, api_param(call, "size")->number, offset, image_uploaded);
}

static void upload_told(struct api_call *call, int error, const char *message, uint64_t have,
			bool done)
{
	Tb__Image *image = NULL;

	if (error != 0) {
		upload_failed(call, error, message);
		return;
	}
	if (done && store_image_get(api_store(call->api), call->arg, &image) != 0)
		image = NULL;
	upload_answer(call, have, image != NULL, image);
	tb__image__free_unpacked(image, NULL);
}

void api_image_upload(struct api_call *call)
{
	if (!api_param(call, "size")->set) {
		api_problem_field(call, 422, "size", "give the size of the whole image in bytes");
		return;
	}
	api_upload(call, call->arg, api_param(call, "size")->number, 0, upload_told);
}

/* --- removal --- */

static void image_removed(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	(void)result;
	api_answer_message(call, &empty.base);
}

void api_image_delete(struct api_call *call)
{
	Tb__Command *command;
	Tb__Image *image;

	if (image_find(call, &image) != 0)
		return;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_IMAGE_REMOVE;
	command->image_remove = mem_alloc(sizeof(*command->image_remove));
	tb__image_remove__init(command->image_remove);
	command->image_remove->sha256 = mem_strdup(image->sha256);
	tb__image__free_unpacked(image, NULL);
	api_propose(call, command, image_removed);
}
