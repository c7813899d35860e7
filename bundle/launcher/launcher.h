/* What stands in place of the L of LD_PRELOAD and its like while our loader works: no shell or runtime can set it. */
#define HIDDEN '\001'
