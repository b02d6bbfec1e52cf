#include "board/cores.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/root.h"

static const struct {
	uint8_t implementer;
	uint16_t part;
	char name[16];
} parts[] = {
	{0x41, 0xd03, "Cortex-A53"},  {0x41, 0xd04, "Cortex-A35"},   {0x41, 0xd05, "Cortex-A55"},
	{0x41, 0xd07, "Cortex-A57"},  {0x41, 0xd08, "Cortex-A72"},   {0x41, 0xd09, "Cortex-A73"},
	{0x41, 0xd0a, "Cortex-A75"},  {0x41, 0xd0b, "Cortex-A76"},   {0x41, 0xd0c, "Neoverse-N1"},
	{0x41, 0xd0d, "Cortex-A77"},  {0x41, 0xd0e, "Cortex-A76AE"}, {0x41, 0xd40, "Neoverse-V1"},
	{0x41, 0xd41, "Cortex-A78"},  {0x41, 0xd42, "Cortex-A78AE"}, {0x41, 0xd44, "Cortex-X1"},
	{0x41, 0xd46, "Cortex-A510"}, {0x41, 0xd47, "Cortex-A710"},  {0x41, 0xd49, "Neoverse-N2"},
	{0x41, 0xd4b, "Cortex-A78C"}, {0x41, 0xd4d, "Cortex-A715"},  {0x41, 0xd4f, "Neoverse-V2"},
	{0x41, 0xd80, "Cortex-A520"}, {0x41, 0xd81, "Cortex-A720"},  {0x43, 0x0a1, "ThunderX"},
	{0x43, 0x0af, "ThunderX2"},   {0x48, 0xd01, "TaiShan-v110"}, {0x4e, 0x003, "Denver 2"},
	{0x4e, 0x004, "Carmel"},      {0x50, 0x000, "X-Gene"},	     {0xc0, 0xac3, "Ampere-1"},
	{0xc0, 0xac4, "Ampere-1a"},
};

const char *cores_part(uint64_t midr)
{
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i].implementer == (midr >> 24 & 0xff) &&
		    parts[i].part == (midr >> 4 & 0xfff))
			return parts[i].name;
	return NULL;
}

static void kind_name(struct core_kind *kind)
{
	const char *name = cores_part(kind->midr);
	char number[24];

	if (name == NULL) {
		snprintf(number, sizeof(number), "0x%02x/0x%03x",
			 (unsigned)(kind->midr >> 24 & 0xff), (unsigned)(kind->midr >> 4 & 0xfff));
		name = number;
	}
	snprintf(kind->name, sizeof(kind->name), "%s r%up%u", name,
		 (unsigned)(kind->midr >> 20 & 0xf), (unsigned)(kind->midr & 0xf));
}

/* One more core; `name` NULL: as the MIDR says. */
static void core_add(struct board_cores *cores, uint64_t midr, const char *name)
{
	struct core_kind *kind = cores->kinds;
	unsigned i;

	cores->count++;
	for (i = 0; i < cores->kind_count; i++, kind++) {
		if (kind->midr == midr && (name == NULL || strcmp(kind->name, name) == 0)) {
			kind->count++;
			return;
		}
	}
	if (cores->kind_count == CORE_KINDS_MAX)
		return;
	cores->kind_count++;
	*kind = (struct core_kind){.midr = midr, .count = 1};
	if (name == NULL)
		kind_name(kind);
	else
		root_clean(name, strlen(name), kind->name, sizeof(kind->name));
}

/* --- sysfs --- */

struct sysfs {
	int root;
	struct board_cores *cores;
};

static bool sysfs_core(void *arg, const char *name)
{
	struct sysfs *s = arg;
	int64_t midr;

	if (isdigit((unsigned char)name[3]) &&
	    root_number(s->root, &midr, "sys/devices/system/cpu/%s/regs/identification/midr_el1",
			name))
		core_add(s->cores, (uint64_t)midr & 0xffffffff, NULL);
	return true;
}

/* --- /proc/cpuinfo: blocks of "name : value", one for each core --- */

static const char *value_of(const char *line, const char *name)
{
	size_t len = strlen(name);
	const char *at = line + len;

	if (strncmp(line, name, len) != 0)
		return NULL;
	at += strspn(at, " \t");
	return *at == ':' ? at + 1 + strspn(at + 1, " ") : NULL;
}

static void field_parse(const char *line, const char *name, unsigned shift, uint64_t mask,
			uint64_t *midr)
{
	const char *value = value_of(line, name);

	if (value != NULL)
		*midr |= (strtoull(value, NULL, 0) & mask) << shift;
}

static void text_parse(char *text, struct board_cores *cores)
{
	uint64_t midr = 0;
	char *save;
	char *line;

	for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		const char *model = value_of(line, "model name");
		uint64_t before = midr;

		field_parse(line, "CPU implementer", 24, 0xff, &midr);
		field_parse(line, "CPU variant", 20, 0xf, &midr);
		field_parse(line, "CPU part", 4, 0xfff, &midr);
		/* The last of a core's lines; Arm's cores have a model name too, of the kernel's.
		 */
		if (value_of(line, "CPU revision") != NULL && before != 0) {
			field_parse(line, "CPU revision", 0, 0xf, &midr);
			core_add(cores, midr | 0xf0000, NULL);
			midr = 0;
		} else if (model != NULL && strncmp(model, "ARMv", 4) != 0) {
			core_add(cores, 0, model);
		}
	}
}

void cores_read(int root, struct board_cores *ret)
{
	struct sysfs s = {root, ret};
	char *text;

	*ret = (struct board_cores){0};
	root_names(root, "sys/devices/system/cpu", "cpu", sysfs_core, &s);
	text = ret->count == 0 ? root_text(root, "proc/cpuinfo") : NULL;
	if (text != NULL)
		text_parse(text, ret);
	free(text);
	ret->arm = ret->count > 0 && ret->kinds[0].midr != 0;
}
