/* The configuration file: any bytes give settings or one message, never anything else. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "witnessd/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config c;
	char *message = NULL;

	config_init(&c);
	if (config_parse(&c, "fuzz", (const char *)data, size, &message) != 0 && message == NULL)
		abort();
	free(message);
	config_free(&c);
	return 0;
}
