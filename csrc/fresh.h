/* Memory that the operating system has not given pages yet. */
#ifndef XENT_FRESH_H
#define XENT_FRESH_H

#include <stdbool.h>

/* Whether the page of an address is still to come, with the first write. Where nobody can say, it
 * is there already. */
bool xent_is_fresh(const char *address);

#endif
