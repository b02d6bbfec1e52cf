/* api_http.h: the API on http.h's server. */
#pragma once
#include "witnessd/api.h"
#include "witnessd/http.h"

struct api_http {
	struct api *api;
	struct buf error; /* body of the newest error that the server itself found */
	struct http_handler handler; /* for http_server_new; lives as long as this */
};

/* For api_config.sink; `conn` is a struct http_request. */
extern const struct api_sink api_http_sink;

void api_http_init(struct api_http *h, struct api *api);
void api_http_free(struct api_http *h);
