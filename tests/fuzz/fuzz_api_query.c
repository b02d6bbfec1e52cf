/* What clients choose in a URL or a header and we take apart: queries of every route, page tokens,
 * bearer tokens. What is accepted keeps the table's promises; what is made is read back. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"
#include "witnessd/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void value_check(const struct api_param *param, const struct api_value *value)
{
	if (!value->set)
		return;
	if (param->type == API_NUMBER)
		must(value->number >= param->min && value->number <= param->max);
	if (param->type == API_TEXT)
		must(strlen(value->text) <= param->max &&
		     text_is_utf8(value->text, strlen(value->text)));
	if (param->type == API_FLAG)
		must(value->number <= 1);
}

static void query_check(const char *query)
{
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_param *params = api_routes[i].params;
		struct api_value values[API_PARAMS_MAX] = {{0}};
		struct api_query_problem problem = {0};

		if (api_query_parse(query, params, values, &problem) != 0)
			must(problem.name[0] != '\0' && problem.message[0] != '\0');
		else
			for (size_t j = 0; params != NULL && params[j].name != NULL; j++)
				value_check(&params[j], &values[j]);
		api_values_free(values, API_PARAMS_MAX);
	}
}

static void page_check(const char *text)
{
	char *page;
	char *last;

	/* Nobody guesses a MAC. */
	must(api_page_open("key", "query", text, &last) != 0);
	if (*text == '\0' || strlen(text) > 100)
		return;
	page = api_page_make("key", "query", text);
	must(api_page_open("key", "query", page, &last) == 0 && strcmp(last, text) == 0);
	free(page);
	free(last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct token_parts parts;
	char *text = mem_alloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	query_check(text);
	page_check(text);
	if (token_parse(text, &parts) == 0)
		must(strlen(text) == TOKEN_TEXT && strlen(parts.id) == TOKEN_ID_HEX);
	free(text);
	return 0;
}
