#pragma once

// the device that code of the host believes to have: it decides how work is split among blocks
void set_device(int compute_capability, int n_sm, int blocks_per_sm);
