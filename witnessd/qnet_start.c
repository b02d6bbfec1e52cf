/* qnet_start.c: the site door of a running daemon: its upcalls are the core and a reader of the
 * core's model, one for each thread. The reader is opened at first use, since a new board has no
 * model yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cluster/store.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/config.h"
#include "witnessd/core.h"
#include "witnessd/qnet_door.h"
#include "witnessd/trail.h"

struct surroundings {
	struct core *core;
	struct store *model; /* NULL: not open */
	struct trail trail;
};

static int model_open(struct surroundings *s)
{
	const char *path = core_model_path(s->core);

	if (s->model != NULL)
		return 0;
	if (path[0] == '\0')
		return -ENOENT;
	return store_open_reader(path, &s->model);
}

/* What cannot be read now is looked at with a new handle next time. */
static int model_failed(struct surroundings *s, int rv)
{
	if (rv != -ENOENT) {
		log_error("sites-model", "the model cannot be read: %s",
			  s->model != NULL ? store_error(s->model) : strerror(-rv));
		store_close(s->model);
		s->model = NULL;
	}
	return rv;
}

static void core_events(void *arg, Tb__DoorEvent **events, size_t count)
{
	core_door_events(((struct surroundings *)arg)->core, events, count);
}

static int model_site(void *arg, const char *name, Tb__SitePolicy **ret)
{
	struct surroundings *s = arg;
	Tb__Site *site;
	int rv = model_open(s);

	if (rv == 0)
		rv = store_site_find(s->model, name, &site);
	if (rv != 0)
		return model_failed(s, rv);
	*ret = site->policy;
	site->policy = NULL;
	tb__site__free_unpacked(site, NULL);
	return 0;
}

static int model_revoked(void *arg, const char *serial)
{
	struct surroundings *s = arg;
	Tb__Certificate *certificate;
	int rv = model_open(s);

	if (rv == 0)
		rv = store_certificate_get(s->model, serial, &certificate);
	if (rv == -ENOENT)
		return 0; /* signed by our CA before the table was kept, or dropped from it by age
			   */
	if (rv != 0)
		return model_failed(s, rv);
	rv = certificate->revoked;
	tb__certificate__free_unpacked(certificate, NULL);
	return rv;
}

static int model_secrets(void *arg, Tb__Secrets **ret)
{
	struct surroundings *s = arg;
	int rv = model_open(s);

	if (rv == 0)
		rv = store_secrets_get(s->model, ret);
	return rv != 0 ? model_failed(s, rv) : 0;
}

static int model_concerns(void *arg)
{
	static const char *const types[] = {"site.changed",	   "site.deleted",
					    "certificate.revoked", "site-ca.rotation",
					    "site-ca.rotated",	   NULL};
	struct surroundings *s = arg;
	int rv = model_open(s);

	if (rv == 0)
		rv = trail_read(&s->trail, s->model, types);
	return rv < 0 ? model_failed(s, rv) : rv;
}

static void surroundings_free(void *arg)
{
	struct surroundings *s = arg;

	store_close(s->model);
	free(s);
}

/* One core is left to the core thread and the front, which do little; a board with one or two cores
 * has one door thread. */
static unsigned door_threads(const struct config *config)
{
	unsigned cores = uv_available_parallelism();

	if (config->threads != 0)
		return (unsigned)config->threads;
	return cores <= 2			   ? 1
	       : cores - 1 < QNET_DOOR_THREADS_MAX ? cores - 1
						   : QNET_DOOR_THREADS_MAX;
}

int qnet_door_start(const struct config *config, struct core *core, struct qnet_door **ret,
		    const char **ret_message)
{
	static const enum qnet_tls tls[] = {[CONFIG_TLS_OFF] = QNET_TLS_UNSUPPORTED,
					    [CONFIG_TLS_ON] = QNET_TLS_SUPPORTED,
					    [CONFIG_TLS_REQUIRED] = QNET_TLS_REQUIRED};
	const struct qnet_door_config door_config = {
		.listen = config->sites_listen,
		.tls = tls[config->tls],
		.client_certificate = config->client_certificate,
		.threads = door_threads(config),
		.sessions_max = (unsigned)config->sessions_max,
		.sessions_per_address_max = (unsigned)config->sessions_per_address_max,
		.pending_per_address_max = (unsigned)config->pending_per_address_max,
	};
	struct qnet_door_upcalls *upcalls = mem_array(door_config.threads, sizeof(*upcalls));
	int rv;

	for (unsigned i = 0; i < door_config.threads; i++) {
		struct surroundings *s = mem_zalloc(sizeof(*s));

		s->core = core;
		upcalls[i] = (struct qnet_door_upcalls){
			.arg = s,
			.events = core_events,
			.view = core_view(core),
			.site = model_site,
			.revoked = model_revoked,
			.secrets = model_secrets,
			.concerns = model_concerns,
			.stopped = surroundings_free,
		};
	}
	rv = qnet_door_start_in(&door_config, upcalls, ret, ret_message);
	free(upcalls);
	return rv;
}
