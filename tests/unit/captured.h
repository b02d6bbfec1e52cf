/* captured.h: the files of a board, as tests/unit/data/boards/README.md describes them, made real
 * in a temporary folder. */
#pragma once

/* data/boards/NAME.board in a new folder, whose path is in `root`; a descriptor of it. */
int captured_unpack(const char *name, char root[64]);
/* An empty one. */
int captured_empty(char root[64]);
/* One file more, or in the place of another; missing folders are made. */
void captured_put(const char *root, const char *path, const char *text);
void captured_link(const char *root, const char *path, const char *target);
void captured_remove(const char *root);
