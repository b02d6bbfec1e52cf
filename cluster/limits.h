/* limits.h: every number that bounds what the cluster agrees on, once. */
#pragma once
#include <stdint.h>

#define LIMIT_CERTIFICATE_LIFE_MS UINT64_C(7776000000) /* 90 days */
#define LIMIT_IMAGE_SIZE (UINT64_C(1) << 40)
/* Of agents: a site may be shut for a season, and nobody can enrol it again from far away. */
#define LIMIT_AGENT_CERTIFICATE_LIFE_MS UINT64_C(31536000000) /* a year */
#define LIMIT_CERTIFICATE_LIFE_MAX_MS UINT64_C(315360000000) /* ten years */

enum {
	LIMIT_SITES = 20000,
	LIMIT_IMAGES = 256,
	LIMIT_VMS = 256,
	LIMIT_VM_BOARDS = 7, /* names in prefer and require */
	LIMIT_VM_NAME = 63, /* bytes: a-z 0-9 - */
	LIMIT_VM_VCPUS = 8,
	LIMIT_VM_MEMORY_MIB = 65536,
	LIMIT_VM_DISKS = 8,
	LIMIT_VM_DISK_MIB = 1 << 20,
	LIMIT_VM_DISK_ID = 20, /* bytes: virtio 1.2, 5.2.6 */
	LIMIT_VM_NICS = 4,
	LIMIT_VM_COMMAND_LINE = 2048, /* bytes */
	LIMIT_VM_ATTEMPTS = 100,
	LIMIT_VM_BACKOFF_MS = 300000,
	LIMIT_BRIDGE = 15, /* bytes of its name: IFNAMSIZ - 1 */
	LIMIT_HOST_VCPUS = 1024,
	LIMIT_HOST_BRIDGES = 16,
	LIMIT_SITE_NODES = 64, /* nodes of one site, configured or attached */
	LIMIT_SITE_LABELS = 16,
	LIMIT_NAME = 64, /* bytes of a site, node, token name: [A-Za-z0-9][A-Za-z0-9._-]* */
	LIMIT_LABEL_KEY = 63, /* [A-Za-z0-9][A-Za-z0-9._/-]* */
	LIMIT_LABEL_VALUE = 63, /* UTF-8 without control characters, may be empty */
	LIMIT_NODES = 7, /* boards */
	LIMIT_TOKENS = 1000,
	LIMIT_TENANTS = 1000, /* with a quota */
	LIMIT_ALARMS = 200,
	LIMIT_ADDRESSES = 64, /* service addresses of the pool; as many as bits of a set */
	LIMIT_INTERFACE = 15, /* bytes of an interface's name (IFNAMSIZ) */
	LIMIT_CERTIFICATES = 50000,
	LIMIT_CERTIFICATES_RESERVED = 1000, /* of them for boards and API clients alone */
	LIMIT_HOLDER_CERTIFICATES = 64, /* valid ones of a site, and of each node with an agent */
	LIMIT_SITE_CERTIFICATES = 256, /* valid ones of a site's agents altogether */
	LIMIT_EVENTS = 10000, /* kept in the ring */
	LIMIT_REQUESTS = 20000, /* command ids remembered for retries */
	LIMIT_BULK = 256, /* sites in one command */
	LIMIT_PAGE = 1000, /* items of one API page */
	LIMIT_ENTRY = 1 << 20, /* bytes of one log entry */
	LIMIT_MESSAGE = 200, /* bytes of an event's or reason's sentence */

	LIMIT_CERTIFICATE_LIFE_MIN_MS = 60000,

	LEASE_MIN_MS = 3000, /* of sites with agents; a new leader needs most of it */
	LEASE_MAX_MS = 120000,
	LEASE_ANSWER_PARTS = 4, /* an agent waits for an answer for a lease divided by this */
	HEARTBEAT_MIN_MS = 1000,
	HEARTBEAT_MAX_MS = 120000,
	LEASE_LENGTH_MS = 3000,
	/* A grant counts from the newest contact of a majority, one renewal ago: at 250 ms a lease
	 * has 2.75 to 3 s left, longer than an election takes, so that sites keep their sessions.
	 */
	LEASE_RENEW_MS = 250,
};
