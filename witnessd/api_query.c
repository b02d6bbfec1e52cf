/* api_query.c: the typed parameters behind the '?'. Refuses what it does not know: a misspelled
 * filter that is ignored would answer another question. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"
#include "witnessd/http.h"

static int value_text(const struct api_param *param, const char *text, struct api_value *value,
		      struct api_query_problem *ret)
{
	char *joined =
		value->text != NULL ? mem_printf("%s,%s", value->text, text) : mem_strdup(text);

	free(value->text);
	value->text = joined;
	if (strlen(joined) <= param->max)
		return 0;
	snprintf(ret->message, sizeof(ret->message), "at most %llu bytes",
		 (unsigned long long)param->max);
	return -EINVAL;
}

static int value_number(const struct api_param *param, const char *text, struct api_value *value,
			struct api_query_problem *ret)
{
	if (text_to_u64(text, param->min, param->max, &value->number) == 0)
		return 0;
	snprintf(ret->message, sizeof(ret->message), "must be a number from %llu to %llu",
		 (unsigned long long)param->min, (unsigned long long)param->max);
	return -EINVAL;
}

static int value_flag(const char *text, struct api_value *value, struct api_query_problem *ret)
{
	value->number = strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
	if (value->number != 0 || strcmp(text, "0") == 0 || strcmp(text, "false") == 0)
		return 0;
	snprintf(ret->message, sizeof(ret->message), "must be 1 or 0");
	return -EINVAL;
}

static int value_word(const struct api_param *param, const char *text, struct api_value *value,
		      struct api_query_problem *ret)
{
	struct json_error error = {0};
	int number;

	if (json_enum_parse(param->words, text, &number, &error) != 0) {
		snprintf(ret->message, sizeof(ret->message), "%s", error.message);
		return -EINVAL;
	}
	value->number = (uint64_t)number;
	value->text = mem_strdup(text);
	return 0;
}

static int value_parse(const struct api_param *param, const char *text, struct api_value *value,
		       struct api_query_problem *ret)
{
	value->set = true;
	switch (param->type) {
	case API_TEXT:
		return value_text(param, text, value, ret);
	case API_NUMBER:
		return value_number(param, text, value, ret);
	case API_FLAG:
		return value_flag(text, value, ret);
	case API_WORD:
		return value_word(param, text, value, ret);
	}
	return -EINVAL;
}

static void param_unknown(const struct api_param *params, struct api_query_problem *ret)
{
	const char *names[API_PARAMS_MAX + 1] = {NULL};
	const char *near;
	size_t n = 0;

	for (; params != NULL && params[n].name != NULL; n++)
		names[n] = params[n].name;
	near = text_nearest(ret->name, names);
	if (n == 0)
		snprintf(ret->message, sizeof(ret->message), "this route has no query parameters");
	else if (near != NULL)
		snprintf(ret->message, sizeof(ret->message),
			 "there is no such query parameter; did you mean \"%s\"?", near);
	else
		snprintf(ret->message, sizeof(ret->message), "there is no such query parameter");
}

static size_t param_index(const struct api_param *params, const char *name)
{
	size_t i = 0;

	while (params != NULL && params[i].name != NULL && strcmp(params[i].name, name) != 0)
		i++;
	return i;
}

static int named_parse(const char *text, const struct api_param *params, struct api_value *values,
		       struct api_query_problem *ret)
{
	size_t i = param_index(params, ret->name);

	if (params == NULL || params[i].name == NULL) {
		param_unknown(params, ret);
		return -EINVAL;
	}
	if (values[i].set && !params[i].repeated) {
		snprintf(ret->message, sizeof(ret->message), "is given twice");
		return -EINVAL;
	}
	return value_parse(&params[i], text, &values[i], ret);
}

static int pair_parse(const char *pair, size_t len, const struct api_param *params,
		      struct api_value *values, struct api_query_problem *ret)
{
	const char *equals = memchr(pair, '=', len);
	size_t name_len = equals != NULL ? (size_t)(equals - pair) : len;
	char *name;
	char *text;
	int rv;

	if (name_len == 0 || http_decode(pair, name_len, true, &name) != 0) {
		snprintf(ret->name, sizeof(ret->name), "query");
		snprintf(ret->message, sizeof(ret->message), "a parameter's name is not readable");
		return -EINVAL;
	}
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	free(name);
	rv = equals != NULL ? http_decode(equals + 1, len - name_len - 1, true, &text)
			    : http_decode("", 0, true, &text);
	if (rv != 0) {
		snprintf(ret->message, sizeof(ret->message), "must be percent-encoded UTF-8");
		return -EINVAL;
	}
	rv = named_parse(text, params, values, ret);
	free(text);
	return rv;
}

int api_query_parse(const char *query, const struct api_param *params, struct api_value *values,
		    struct api_query_problem *ret)
{
	while (*query != '\0') {
		size_t len = strcspn(query, "&");

		if (len > 0 && pair_parse(query, len, params, values, ret) != 0)
			return -EINVAL;
		query += len;
		query += *query == '&';
	}
	return 0;
}

void api_values_free(struct api_value *values, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(values[i].text);
		values[i] = (struct api_value){0};
	}
}
