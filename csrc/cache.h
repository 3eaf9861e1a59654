/* The caches of this machine. */
#ifndef XENT_CACHE_H
#define XENT_CACHE_H

/* Bytes of a core's L1 data cache; 0 where nobody can say, as with musl. */
long xent_l1_cache(void);

#endif
