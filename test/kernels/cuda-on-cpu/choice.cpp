// What chooses the kernels; of it, only the part on sparse masks is linked.
#include "fattn.cu"
