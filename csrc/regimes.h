/* The ways to carry rows through load -> reduce -> finish -> emit. plan.c chooses one. */
#ifndef XENT_REGIMES_H
#define XENT_REGIMES_H

#include "job.h"

/* The bytes of its own that each member of the team needs. */
size_t xent_rows_workspace(const struct xent_job *job);
size_t xent_lanes_workspace(const struct xent_job *job);
size_t xent_groups_workspace(const struct xent_job *job);

/* A thread takes whole rows, one after the other; or all threads take blocks of one row. */
void xent_run_rows(struct xent_job *job);
void xent_run_columns(struct xent_job *job);

/* A thread takes rows side by side. */
void xent_run_lanes(struct xent_job *job);

/* A thread takes groups of rows, which it puts one after the other. */
void xent_run_groups(struct xent_job *job);

#endif
