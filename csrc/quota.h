/* The processor time that control groups grant. */
#ifndef XENT_QUOTA_H
#define XENT_QUOTA_H

/* The processors' worth of time that the control groups of this process allow it, rounded up; 0
 * where none sets a limit. `root` is prepended to every path that is read: "" but in tests. */
int xent_quota(const char *root);

#endif
