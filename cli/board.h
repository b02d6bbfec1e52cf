/* board.h: the facts of a board, for "node show". */
#pragma once
#include "proto/model.pb-c.h"

void board_print(const Tb__BoardFacts *facts);
