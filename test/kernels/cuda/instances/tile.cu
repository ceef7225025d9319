#include "fattn-tile.cuh"

DECL_FATTN_TILE_CASE(64, 64);
